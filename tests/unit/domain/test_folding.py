"""Folding a batch: every tick lands in its 100 ms slice, or is counted for its timestamp."""

from hypothesis import given
from hypothesis import strategies as st

from marketflow.domain.bar import SLICE_MS
from marketflow.domain.folding import fold_columns
from tests.support.oracle import Row, Tick, row_of

NOW = 1_763_827_200_050
TICK = st.tuples(
    st.sampled_from(["BTCUSDT", "ETHUSDT"]),
    st.integers(1, 4096).map(lambda eighths: eighths / 8),
    st.one_of(st.integers(NOW - 320, NOW + 320), st.integers()),
)


@given(st.lists(TICK, max_size=40), st.integers(0, 300))
def test_a_batch_becomes_the_bars_of_its_slices(ticks: list[tuple[str, float, int]], max_skew: int) -> None:
    columns: dict[str, tuple[list[float], list[int]]] = {}
    for symbol, price, time in ticks:
        prices, times = columns.setdefault(symbol, ([], []))
        prices.append(price)
        times.append(time)

    folded = fold_columns(columns, 5, NOW, max_skew)

    expected: dict[tuple[str, int], list[Tick]] = {}
    for symbol, price, time in ticks:
        if abs(time - NOW) <= max_skew:
            expected.setdefault((symbol, time // 100 * 100), []).append(Tick("", symbol, price, time))
    found = {(symbol, start): bar for symbol, slices in folded.bars.items() for start, bar in slices.items()}
    rows = {key: Row(bar.open, bar.close, bar.low, bar.high, bar.average, bar.count) for key, bar in found.items()}
    assert rows == {key: row_of(group) for key, group in expected.items()}
    assert folded.accepted == sum(len(group) for group in expected.values())
    assert folded.accepted + folded.bad_timestamps == len(ticks)
    assert all(bar.open_order == bar.close_order == 5 for bar in found.values())


def test_the_skew_is_inclusive_on_both_sides() -> None:
    times = [NOW - 61, NOW - 60, NOW, NOW + 60, NOW + 61]
    folded = fold_columns({"BTCUSDT": ([1.0] * 5, times)}, 0, NOW, 60)
    assert (folded.accepted, folded.bad_timestamps) == (3, 2)


def test_a_symbol_with_no_good_timestamp_has_no_bars() -> None:
    folded = fold_columns({"BTCUSDT": ([1.0], [0]), "ETHUSDT": ([2.0], [NOW])}, 0, NOW, 1_000)
    assert list(folded.bars) == ["ETHUSDT"]
    assert list(folded.bars["ETHUSDT"]) == [NOW - NOW % SLICE_MS]


def test_the_last_millisecond_of_a_slice_belongs_to_it_and_the_next_does_not() -> None:
    start = NOW - NOW % SLICE_MS
    folded = fold_columns({"BTCUSDT": ([1.0, 2.0, 3.0], [start, start + 99, start + 100])}, 0, NOW, 1_000)
    assert {at: bar.count for at, bar in folded.bars["BTCUSDT"].items()} == {start: 2, start + 100: 1}
