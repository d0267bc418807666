"""The view: the newest price and the recent series of every pair and exchange of one mode, in memory."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import msgspec

from marketflow.domain.bar import Bar, merge
from marketflow.domain.folding import SliceBars
from marketflow.domain.period import Span
from marketflow.domain.series import Series, pack, pack_bar, unpack
from marketflow.domain.summary import Summary


class Latest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The newest price of a pair on an exchange (quote currency), and its time (Unix ms)."""

    price: float
    timestamp: int


class Flush(NamedTuple):
    """Whole states of one mode: latest prices by symbol and exchange, and slice records (see
    `marketflow.domain.series`) by exchange, symbol and start of the slice."""

    latest: Mapping[str, Mapping[str, Latest]]
    slices: Mapping[str, Mapping[str, Mapping[int, bytes]]]


class Newest(msgspec.Struct, frozen=True, order=True, gc=False):
    """The newest tick of a pair on an exchange, and when it was last refreshed (both Unix ms).

    Its order is its place in the order of receipt, as for bars.
    """

    timestamp: int
    order: int
    price: float
    refreshed: int


class _Pair:
    """One pair on one exchange."""

    __slots__ = ("newest", "series")

    def __init__(self) -> None:
        self.newest: Newest | None = None
        self.series = Series()


class Prepared(NamedTuple):
    """Whole states to write, and where in the view they belong once that is done."""

    flush: Flush
    states: list[tuple[str, _Pair, Newest, dict[int, bytes]]]


Waiting: TypeAlias = dict[str, SliceBars]
"""Bars that wait to be taken over, by exchange."""


def gather(waiting: Waiting, exchange: str, bars: SliceBars) -> None:
    """Add the bars of a batch to those that wait; what is of one slice is merged. The batch itself is not changed."""
    symbols = waiting.setdefault(exchange, {})
    for symbol, slices in bars.items():
        known = symbols.get(symbol)
        if known is None:
            symbols[symbol] = slices
            continue
        merged = symbols[symbol] = dict(known)
        for start, bar in slices.items():
            other = known.get(start)
            merged[start] = bar if other is None else merge(other, bar)


def take(waiting: Waiting, pairs: int) -> Waiting:
    """Take out of what waits at most so many pairs; an empty dict when nothing waits."""
    taken: Waiting = {}
    for exchange in list(waiting):
        symbols = waiting[exchange]
        if len(symbols) <= pairs:
            taken[exchange] = waiting.pop(exchange)
        else:
            taken[exchange] = dict(symbols.popitem() for _ in range(pairs))
        pairs -= len(taken[exchange])
        if not pairs:
            break
    return taken


class View:
    """What queries are answered from. States are prepared first, and applied once they are in Redis too."""

    def __init__(self) -> None:
        self._pairs: dict[str, dict[str, _Pair]] = {}
        self._answers: dict[str, dict[tuple[str, Span], Summary | None]] = {}
        self._answers_end = 0

    def prepare(self, waiting: Waiting, now: int) -> Prepared:
        """Return the whole states that the waiting bars lead to; `now` (Unix ms) is when they refresh their price."""
        latest: dict[str, dict[str, Latest]] = {}
        slices: dict[str, dict[str, dict[int, bytes]]] = {}
        states: list[tuple[str, _Pair, Newest, dict[int, bytes]]] = []
        for exchange, symbols in waiting.items():
            pairs = self._pairs.setdefault(exchange, {})
            of_exchange = slices[exchange] = {}
            for symbol, bars in symbols.items():
                pair = pairs.get(symbol)
                if pair is None:
                    pair = pairs[symbol] = _Pair()
                get = pair.series.get
                records = of_exchange[symbol] = {start: pack_bar(bar, get(start)) for start, bar in bars.items()}
                newest = _newer(pair.newest, _last(bars), now)
                states.append((symbol, pair, newest, records))
                price = Latest(newest.price, newest.timestamp)
                if symbol in latest:
                    latest[symbol][exchange] = price
                else:
                    latest[symbol] = {exchange: price}
        return Prepared(Flush(latest, slices), states)

    def apply(self, prepared: Prepared) -> None:
        """Take over states that were prepared last."""
        for symbol, pair, newest, records in prepared.states:
            pair.newest = newest
            self._forget_answers(symbol, records)
            put = pair.series.put
            for start, record in records.items():
                put(start, record)

    def learn(self, flush: Flush, now: int) -> None:
        """Take over those states of another node, or of Redis, that are newer than what is known; it is `now`."""
        for symbol, prices in flush.latest.items():
            for exchange, latest in prices.items():
                pair = self._pair(exchange, symbol)
                if pair.newest is None or latest.timestamp >= pair.newest.timestamp:
                    pair.newest = Newest(latest.timestamp, 0, latest.price, now)
        for exchange, symbols in flush.slices.items():
            for symbol, records in symbols.items():
                series = self._pair(exchange, symbol).series
                self._forget_answers(symbol, records)
                for start, record in records.items():
                    series.put_newer(start, record)

    def add(self, exchange: str, symbols: Mapping[str, Mapping[int, bytes]]) -> None:
        """Add an exchange's slices of an earlier run: ticks that are not in what is known."""
        for symbol, records in symbols.items():
            series = self._pair(exchange, symbol).series
            self._forget_answers(symbol, records)
            for start, record in records.items():
                known = series.get(start)
                series.put(start, record if known is None else pack(unpack(known, start).merge(unpack(record, start))))

    def newest(self, symbol: str) -> dict[str, Newest]:
        """Return the newest ticks of a symbol, by exchange."""
        return {
            exchange: pair.newest
            for exchange, pairs in self._pairs.items()
            if (pair := pairs.get(symbol)) is not None and pair.newest is not None
        }

    def summaries(self, symbol: str, exchange: str | None, span: Span) -> dict[str, Summary]:
        """Return, by exchange, what the ticks of a span amount to, for one exchange or (None) for all.

        It is kept until a span with another end is asked for (every 100 ms) or a slice that it covers changes.
        """
        if span.end != self._answers_end:
            self._answers = {}
            self._answers_end = span.end
        answers = self._answers.setdefault(symbol, {})
        found: dict[str, Summary] = {}
        for name in self._pairs if exchange is None else (exchange,):
            try:
                known = answers[name, span]
            except KeyError:
                known = answers[name, span] = self._summarize(symbol, name, span)
            if known is not None:
                found[name] = known
        return found

    def series(self, exchange: str | None = None) -> Iterator[tuple[str, Series]]:
        """Yield symbol and series of every pair of an exchange, or of all. The view may change meanwhile."""
        for name, pairs in list(self._pairs.items()):
            if exchange is None or name == exchange:
                for symbol, pair in list(pairs.items()):
                    yield symbol, pair.series

    def records(self, exchange: str, symbol: str, starts: Iterable[int]) -> dict[int, bytes]:
        """Return the records of those slices that are known, by start."""
        series = self._pair(exchange, symbol).series
        return {start: record for start in starts if (record := series.get(start)) is not None}

    def _summarize(self, symbol: str, exchange: str, span: Span) -> Summary | None:
        pair = self._pairs.get(exchange, {}).get(symbol)
        return None if pair is None else pair.series.summary(span)

    def _forget_answers(self, symbol: str, records: Mapping[int, bytes]) -> None:
        """Forget the answers that cover one of these slices, which are about to change."""
        if symbol in self._answers and records and min(records) < self._answers_end:
            del self._answers[symbol]

    def _pair(self, exchange: str, symbol: str) -> _Pair:
        pairs = self._pairs.setdefault(exchange, {})
        pair = pairs.get(symbol)
        if pair is None:
            pair = pairs[symbol] = _Pair()
        return pair


def _newer(known: Newest | None, bar: Bar, now: int) -> Newest:
    """The newer of a known tick and the close of a bar, refreshed now either way."""
    time, order = bar.close_time, bar.close_order
    if known is None or time > known.timestamp or (time == known.timestamp and order > known.order):
        return Newest(time, order, bar.close, now)
    return Newest(known.timestamp, known.order, known.price, now)


def _last(bars: Mapping[int, Bar]) -> Bar:
    """The bar of the last slice."""
    return bars[max(bars)] if len(bars) > 1 else next(iter(bars.values()))
