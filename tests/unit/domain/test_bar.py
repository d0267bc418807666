"""Bars are a commutative monoid, and their fold is what the oracle makes of the same ticks."""

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from marketflow.domain.bar import Bar, fold, fold_in_order, merge
from tests.support.oracle import Row, Tick, highest, lowest, row_of

DYADIC = st.integers(1, 4096).map(lambda eighths: eighths / 8)  # exact in every sum, so that == is fair
TICKS = st.lists(st.tuples(DYADIC, st.integers(1_000, 1_020)), min_size=1, max_size=12)
BATCHES = st.lists(TICKS, min_size=1, max_size=6)


def bars_of(batches: list[list[tuple[float, int]]]) -> list[Bar]:
    return [fold([price for price, _ in batch], [time for _, time in batch], i) for i, batch in enumerate(batches)]


def merge_all(bars: list[Bar]) -> Bar:
    result = bars[0]
    for bar in bars[1:]:
        result = merge(result, bar)
    return result


def check(bar: Bar, ticks: list[Tick]) -> None:
    assert Row(bar.open, bar.close, bar.low, bar.high, bar.average, bar.count) == row_of(ticks)
    assert (bar.high, bar.high_time) == (highest(ticks).price, highest(ticks).time)
    assert (bar.low, bar.low_time) == (lowest(ticks).price, lowest(ticks).time)
    assert (bar.open_time, bar.close_time) == (min(tick.time for tick in ticks), max(tick.time for tick in ticks))


def as_ticks(batches: list[list[tuple[float, int]]]) -> list[Tick]:
    return [Tick("exchange1", "BTCUSDT", price, time) for price, time in itertools.chain.from_iterable(batches)]


@given(BATCHES, st.randoms(use_true_random=False))
def test_merging_batches_in_any_order_gives_what_the_oracle_says(
    batches: list[list[tuple[float, int]]], shuffler: random.Random
) -> None:
    bars = bars_of(batches)
    shuffler.shuffle(bars)
    check(merge_all(bars), as_ticks(batches))


@given(TICKS, TICKS)
def test_merge_is_commutative(a: list[tuple[float, int]], b: list[tuple[float, int]]) -> None:
    left, right = bars_of([a, b])
    assert merge(left, right) == merge(right, left)


@given(TICKS, TICKS, TICKS)
def test_merge_is_associative(
    a: list[tuple[float, int]], b: list[tuple[float, int]], c: list[tuple[float, int]]
) -> None:
    x, y, z = bars_of([a, b, c])
    assert merge(merge(x, y), z) == merge(x, merge(y, z))


@given(TICKS, st.data())
def test_the_way_ticks_are_cut_into_batches_does_not_matter(
    ticks: list[tuple[float, int]], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(ticks))))) if len(ticks) > 1 else []
    batches = [batch for batch in (ticks[i:j] for i, j in itertools.pairwise([0, *cuts, len(ticks)])) if batch]
    check(merge_all(bars_of(batches)), as_ticks([ticks]))


def test_ticks_of_one_millisecond_go_by_the_order_of_receipt() -> None:
    later, earlier = fold([3.0, 4.0], [1_000, 1_000], 8), fold([1.0, 2.0], [1_000, 1_000], 7)
    bar = merge(later, earlier)
    assert (bar.open, bar.close, bar.open_order, bar.close_order) == (1.0, 4.0, 7, 8)


@given(TICKS)
def test_ticks_in_order_of_time_fold_the_same_the_short_way(ticks: list[tuple[float, int]]) -> None:
    ticks.sort(key=lambda tick: tick[1])
    prices, times = [price for price, _ in ticks], [time for _, time in ticks]
    assert fold_in_order(prices, times, 7) == fold(prices, times, 7)


def test_an_average_is_total_over_count() -> None:
    assert merge(fold([1.0], [1_000], 0), fold([2.0, 3.0, 6.0], [1_001] * 3, 1)).average == 3.0
