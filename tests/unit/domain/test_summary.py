"""Summaries merge as the ticks behind them do."""

from hypothesis import given
from hypothesis import strategies as st

from marketflow.domain.bar import fold, merge
from marketflow.domain.summary import Summary, merge_in_order, merge_optional, of_bar

DYADIC = st.integers(1, 64).map(lambda eighths: eighths / 8)
TICKS = st.lists(st.tuples(DYADIC, st.integers(1_000, 1_005)), min_size=1, max_size=8)


def summary_of(ticks: list[tuple[float, int]]) -> Summary:
    return of_bar(fold([price for price, _ in ticks], [time for _, time in ticks], 0))


@given(TICKS, TICKS)
def test_a_merged_summary_is_the_summary_of_all_ticks(a: list[tuple[float, int]], b: list[tuple[float, int]]) -> None:
    assert summary_of(a).merge(summary_of(b)) == summary_of(a + b) == summary_of(b).merge(summary_of(a))


@given(TICKS, TICKS)
def test_summary_and_bar_merge_alike(a: list[tuple[float, int]], b: list[tuple[float, int]]) -> None:
    bars = [fold([price for price, _ in t], [time for _, time in t], order) for order, t in enumerate((a, b))]
    assert of_bar(merge(*bars)) == of_bar(bars[0]).merge(of_bar(bars[1]))


def test_nothing_is_neutral() -> None:
    one = Summary(2.0, 5, 1.0, 4, 3.0, 2)
    assert merge_optional(None, None) is None
    assert merge_optional(one, None) == merge_optional(None, one) == one
    assert merge_optional(one, one) == Summary(2.0, 5, 1.0, 4, 6.0, 4)


@given(st.lists(TICKS, max_size=5))
def test_stretches_that_follow_each_other_merge_as_one_by_one(stretches: list[list[tuple[float, int]]]) -> None:
    parts = [summary_of([(price, time + 10 * at) for price, time in ticks]) for at, ticks in enumerate(stretches)]
    one_by_one = None
    for part in parts:
        one_by_one = merge_optional(one_by_one, part)
    assert merge_in_order(parts) == one_by_one


def test_a_price_reached_twice_keeps_the_earlier_time() -> None:
    early, late = Summary(2.0, 5, 1.0, 4, 3.0, 2), Summary(2.0, 9, 1.0, 8, 3.0, 2)
    assert early.merge(late)[:4] == late.merge(early)[:4] == early[:4]
