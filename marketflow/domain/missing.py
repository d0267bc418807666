"""Missing slices: what a store lacks of a view, because a write to it failed or was not tried."""

from collections.abc import Iterator, Mapping

from marketflow.domain.view import View


class Missing:
    """The slices of one mode by exchange, symbol and start (Unix ms). Noted while they wait, written from the view."""

    def __init__(self) -> None:
        self._starts: dict[str, dict[str, set[int]]] = {}
        self.slices = 0
        """How many there are."""

    def note(self, slices: Mapping[str, Mapping[str, Mapping[int, bytes]]]) -> None:
        """Add slices."""
        for exchange, symbols in slices.items():
            known = self._starts.setdefault(exchange, {})
            for symbol, records in symbols.items():
                starts = known.setdefault(symbol, set())
                self.slices -= len(starts)
                starts.update(records)
                self.slices += len(starts)

    def clear(self) -> None:
        """Forget them all: they are written."""
        self._starts = {}
        self.slices = 0

    def pieces(self, view: View, size: int) -> Iterator[tuple[str, dict[str, dict[int, bytes]]]]:
        """Yield exchanges with records by symbol and start, about `size` at a time, as the view has them now."""
        for exchange, symbols in self._starts.items():
            yield from pieces(
                exchange,
                ((symbol, view.records(exchange, symbol, starts)) for symbol, starts in symbols.items()),
                size,
            )


def pieces(
    exchange: str, records: Iterator[tuple[str, dict[int, bytes]]], size: int
) -> Iterator[tuple[str, dict[str, dict[int, bytes]]]]:
    """Yield an exchange with records by symbol and start, about `size` of them at a time."""
    piece: dict[str, dict[int, bytes]] = {}
    held = 0
    for symbol, slices in records:
        piece[symbol] = slices
        held += len(slices)
        if held >= size:
            yield exchange, piece
            piece, held = {}, 0
    if piece:
        yield exchange, piece
