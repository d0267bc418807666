"""The view: the newest price and the recent series of every pair and exchange of one mode, in memory."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from marketflow.domain.bar import Bar, merge
from marketflow.domain.folding import SliceBars
from marketflow.domain.period import Span
from marketflow.domain.series import Series, pack, pack_bar, unpack
from marketflow.domain.summary import Summary


class Newest(NamedTuple):
    """The newest tick of a pair on an exchange, and when it was last refreshed (both Unix ms)."""

    timestamp: int
    order: int
    price: float
    refreshed: int


class Change(NamedTuple):
    """Whole states for a view to take over, by exchange and symbol: newest prices, and slice records by start."""

    newest: Mapping[str, Mapping[str, Newest]]
    slices: Mapping[str, Mapping[str, Mapping[int, bytes]]]


Waiting: TypeAlias = dict[str, SliceBars]
"""Bars that wait to be taken over, by exchange."""


def gather(waiting: Waiting, exchange: str, bars: SliceBars) -> None:
    """Add the bars of a batch to those that wait; what is of one slice is merged."""
    symbols = waiting.setdefault(exchange, {})
    for symbol, slices in bars.items():
        known = symbols.get(symbol)
        if known is None:
            symbols[symbol] = dict(slices)
            continue
        for start, bar in slices.items():
            other = known.get(start)
            known[start] = bar if other is None else merge(other, bar)


class View:
    """What queries are answered from. A change is prepared first, and applied once it is in Redis too."""

    def __init__(self) -> None:
        self._newest: dict[str, dict[str, Newest]] = {}
        self._series: dict[str, dict[str, Series]] = {}
        self._answers: dict[str, dict[tuple[str | None, Span], dict[str, Summary]]] = {}
        self._answers_end = 0

    def prepare(self, waiting: Waiting, now: int) -> Change:
        """Return the whole states that the waiting bars lead to; `now` (Unix ms) is when they refresh their price."""
        newest: dict[str, dict[str, Newest]] = {}
        slices: dict[str, dict[str, dict[int, bytes]]] = {}
        for exchange, symbols in waiting.items():
            new_newest = newest[exchange] = {}
            new_slices = slices[exchange] = {}
            for symbol, bars in symbols.items():
                series = self._series.get(symbol, {}).get(exchange)
                new_slices[symbol] = {
                    start: pack_bar(bar, None if series is None else series.get(start), start)
                    for start, bar in bars.items()
                }
                bar = _last(bars)
                price = Newest(bar.close_time, bar.close_order, bar.close, now)
                known = self._newest.get(symbol, {}).get(exchange)
                new_newest[symbol] = price if known is None or price[:2] > known[:2] else known._replace(refreshed=now)
        return Change(newest, slices)

    def apply(self, change: Change) -> None:
        """Take over whole states."""
        for exchange, newest in change.newest.items():
            for symbol, price in newest.items():
                self._newest.setdefault(symbol, {})[exchange] = price
        for exchange, symbols in change.slices.items():
            for symbol, slices in symbols.items():
                series = self._series_to_change(symbol, exchange, slices)
                for start, record in slices.items():
                    series.put(start, record)

    def learn(self, change: Change) -> None:
        """Take over those states of another node, or of Redis, that are newer than what is known."""
        for exchange, newest in change.newest.items():
            for symbol, price in newest.items():
                known = self._newest.setdefault(symbol, {}).get(exchange)
                if known is None or price.timestamp >= known.timestamp:
                    self._newest[symbol][exchange] = price
        for exchange, symbols in change.slices.items():
            for symbol, slices in symbols.items():
                series = self._series_to_change(symbol, exchange, slices)
                for start, record in slices.items():
                    series.put_newer(start, record)

    def add(self, exchange: str, symbols: Mapping[str, Mapping[int, bytes]]) -> None:
        """Add an exchange's slices of an earlier run: ticks that are not in what is known."""
        for symbol, slices in symbols.items():
            series = self._series_to_change(symbol, exchange, slices)
            for start, record in slices.items():
                known = series.get(start)
                series.put(start, record if known is None else pack(unpack(known, start).merge(unpack(record, start))))

    def newest(self, symbol: str) -> Mapping[str, Newest]:
        """Return the newest ticks of a symbol, by exchange."""
        return self._newest.get(symbol, {})

    def symbols(self) -> Iterable[str]:
        """Return the symbols that have had a tick."""
        return self._newest.keys()

    def summaries(self, symbol: str, exchange: str | None, span: Span) -> dict[str, Summary]:
        """Return, by exchange, what the ticks of a span amount to, for one exchange or (None) for all.

        An answer is kept until a span with another end is asked for (every 100 ms) or a slice that it covers changes.
        """
        if span.end != self._answers_end:
            self._answers = {}
            self._answers_end = span.end
        answers = self._answers.setdefault(symbol, {})
        known = answers.get((exchange, span))
        if known is None:
            known = answers[exchange, span] = self._summarize(symbol, exchange, span)
        return known

    def _summarize(self, symbol: str, exchange: str | None, span: Span) -> dict[str, Summary]:
        found: dict[str, Summary] = {}
        for name, series in self._series.get(symbol, {}).items():
            if exchange is None or name == exchange:
                summary = series.summary(span)
                if summary is not None:
                    found[name] = summary
        return found

    def slices(self) -> Iterator[tuple[str, str, Series]]:
        """Yield exchange, symbol and series of everything that is kept."""
        for symbol, exchanges in list(self._series.items()):
            for exchange, series in list(exchanges.items()):
                yield exchange, symbol, series

    def drop_before(self, time: int) -> None:
        """Forget slices that are in blocks which end at or before `time` (Unix ms)."""
        for _, _, series in self.slices():
            series.drop_before(time)

    def _series_to_change(self, symbol: str, exchange: str, slices: Mapping[int, bytes]) -> Series:
        """Return a series of which these slices are about to change; answers that cover one of them are forgotten."""
        if slices and min(slices) < self._answers_end:
            self._answers.pop(symbol, None)
        exchanges = self._series.setdefault(symbol, {})
        series = exchanges.get(exchange)
        if series is None:
            series = exchanges[exchange] = Series()
        return series


def _last(bars: Mapping[int, Bar]) -> Bar:
    """The bar of the last slice."""
    return bars[max(bars)] if len(bars) > 1 else next(iter(bars.values()))
