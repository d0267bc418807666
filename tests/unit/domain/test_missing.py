"""Missing slices: what was noted is what is written, once, whatever the size of the pieces."""

from collections.abc import Iterator, Mapping

from hypothesis import given
from hypothesis import strategies as st

from marketflow.domain.missing import Missing
from marketflow.domain.view import View
from tests.unit.domain.test_view import Tick, batches, change_of

Slice = tuple[str, str, int]  # exchange, symbol, start
Slices = Mapping[str, Mapping[str, Mapping[int, bytes]]]


@given(batches, st.data(), st.integers(1, 8))
def test_what_a_store_did_not_get_is_in_the_pieces_as_the_view_has_it(
    sent: list[list[Tick]], data: st.DataObject, size: int
) -> None:
    view, missing = View(), Missing()
    store: dict[Slice, bytes] = {}
    for order, batch in enumerate(sent):
        prepared = change_of(view, batch, order)
        view.apply(prepared)
        if data.draw(st.booleans(), "the write fails"):
            missing.note(prepared.flush.slices)
        else:
            put(store, prepared.flush.slices)
    written = 0
    pieces = list(missing.pieces(view, size))
    for at, (exchange, piece) in enumerate(pieces):
        *earlier, last = map(len, piece.values())
        assert sum(earlier) < size, "no piece goes on beyond its size"
        ends = at + 1 == len(pieces) or pieces[at + 1][0] != exchange
        assert ends or sum(earlier) + last >= size, "only the last of an exchange is smaller"
        written += sum(earlier) + last
        put(store, {exchange: piece})
    assert written == missing.slices
    whole = {exchange: {symbol: dict(series.items()) for symbol, series in view.series(exchange)} for exchange in "ab"}
    assert store == dict(slices_of(whole))
    missing.clear()
    assert (missing.slices, list(missing.pieces(view, size))) == (0, [])


def test_a_slice_that_the_view_has_dropped_is_not_written() -> None:
    view, missing = View(), Missing()
    missing.note({"a": {"X": {100: b"", 200: b""}}})
    assert missing.slices == 2
    assert list(missing.pieces(view, 10)) == [("a", {"X": {}})]


def put(store: dict[Slice, bytes], slices: Slices) -> None:
    store.update(slices_of(slices))


def slices_of(slices: Slices) -> Iterator[tuple[Slice, bytes]]:
    for exchange, symbols in slices.items():
        for symbol, records in symbols.items():
            for start, record in records.items():
                yield (exchange, symbol, start), record
