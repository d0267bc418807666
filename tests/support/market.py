"""A Market over a list of ticks and a clock that stands still: right by being plain."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest

from marketflow import __version__
from marketflow.domain.mode import Mode
from marketflow.domain.period import span_of
from marketflow.errors import NoData, Unavailable, UnknownExchange, UnknownSymbol
from marketflow.ports import Kind, LatestPrice, PeriodPrice, Source, Switched

SYMBOLS = ("BTCUSDT", "ETHUSDT")
EXCHANGES = ("exchange1", "exchange2", "exchange3")
DAY_MS = 86_400_000


class ListedTick(NamedTuple):
    """A tick and where it was received."""

    mode: Mode
    exchange: str
    symbol: str
    price: float
    timestamp: int


class MemoryMarket:
    """Answers from listed ticks. Set `away` and no price can be had; `broken`, and every answer is a fault."""

    retention = 365 * DAY_MS

    def __init__(self, ticks: Iterable[ListedTick], now: int, mode: Mode = "live") -> None:
        self.ticks = list(ticks)
        self.now = now
        self.away = False
        self.broken = False
        self.registry = CollectorRegistry()
        self._mode: Mode = mode

    def _received(self, symbol: str, exchange: str | None) -> list[ListedTick]:
        if self.broken:
            raise RuntimeError("a secret of the inside")
        if symbol not in SYMBOLS:
            raise UnknownSymbol(symbol)
        if exchange is not None and exchange not in EXCHANGES:
            raise UnknownExchange(exchange)
        if self.away:
            raise Unavailable("redis at 10.1.2.3 refused, and so did the rest")
        return [
            tick
            for tick in self.ticks
            if tick.mode == self._mode and tick.symbol == symbol and exchange in {None, tick.exchange}
        ]

    def latest(self, symbol: str, exchange: str | None = None) -> LatestPrice:
        ticks = self._received(symbol, exchange)
        if not ticks:
            raise NoData(symbol)
        tick = max(ticks, key=lambda tick: tick.timestamp)
        stale = self.now - tick.timestamp > 60_000
        source: Source = "memory" if stale else "redis"
        return LatestPrice(symbol, tick.exchange, tick.price, tick.timestamp, self._mode, source, stale)

    def latest_all(self) -> tuple[Mode, list[LatestPrice]]:
        pairs = sorted({(tick.symbol, tick.exchange) for tick in self.ticks if tick.mode == self._mode})
        return self._mode, [self.latest(*pair) for pair in pairs]

    def period(self, kind: Kind, symbol: str, exchange: str | None, period: int) -> PeriodPrice:
        start, end = span_of(self.now, period)
        ticks = [tick for tick in self._received(symbol, exchange) if start <= tick.timestamp < end]
        if not ticks:
            raise NoData(symbol)
        if kind == "average":
            average = sum(tick.price for tick in ticks) / len(ticks)
            return PeriodPrice(symbol, exchange, average, None, start, end, len(ticks), self._mode, "redis")
        sign = -1 if kind == "highest" else 1
        tick = min(ticks, key=lambda tick: (sign * tick.price, tick.timestamp))
        return PeriodPrice(
            symbol, tick.exchange, tick.price, tick.timestamp, start, end, len(ticks), self._mode, "redis"
        )

    def mode(self) -> Mode:
        return self._mode

    def switch(self, mode: Mode) -> Switched:
        if self.away:
            raise Unavailable("the mode supervisor did not answer")
        previous, self._mode = self._mode, mode
        return Switched(mode, previous, mode != previous)

    def health(self) -> dict[str, Any]:
        newest = {tick.exchange: tick.timestamp for tick in self.ticks if tick.mode == self._mode}
        return {
            "status": "down" if self.away else "ok",
            "mode": self._mode,
            "version": __version__,
            "components": {
                "redis": {"status": "ok"},
                "postgres": {"status": "ok"},
                "exchanges": {
                    name: {"status": "ok", "last_tick_age_ms": self.now - timestamp}
                    for name, timestamp in sorted(newest.items())
                },
                "actors": {"status": "ok", "restarts": 0},
            },
        }

    def live(self) -> bool:
        return not self.broken

    def ready(self) -> bool:
        return not self.away

    def actors(self) -> list[dict[str, Any]]:
        def actor(path: str, kind: str, depth: int, bound: int, handled: int, busy_ms: int) -> dict[str, Any]:
            parent, _, name = path.rpartition("/")
            return {
                "name": name,
                "path": path,
                "kind": kind,
                "parent": parent or None,
                "state": "running",
                "mailbox": {"depth": depth, "bound": bound},
                "handled": handled,
                "failures": 0,
                "restarts": 0,
                "last_message_at": 1763827200123 if handled else None,
                "busy_ms": busy_ms,
                "last_failure": None,
            }

        return [actor("root", "Supervisor", 0, 0, 0, 0), actor("root/cache", "CacheActor", 1, 1024, 48211, 9120)]

    def metrics(self) -> bytes:
        return generate_latest(self.registry)


def example_market() -> MemoryMarket:
    """Return the market that the examples of the API's description were taken from: three exchanges that send a BTCUSDT
    tick every 20 ms in turn, prices that go up and down, and an ETHUSDT that nobody has traded for a while."""
    now = 1763827200124
    special = {
        ("exchange2", 1763827199883): 67100.0,
        ("exchange1", 1763827185005): 67090.0,
        ("exchange3", 1763827171010): 66950.25,
        ("exchange1", 1763827150005): 66960.5,
        ("exchange1", 1763827200105): 67011.75,
        ("exchange2", 1763827200123): 67012.5,
    }
    ticks = [ListedTick("live", "exchange1", "ETHUSDT", 3105.25, now - 80_000)]
    for number, first in enumerate(("exchange1", "exchange2", "exchange3")):
        offset = (5, 3, 10)[number]
        for step in range(-3500, 7):
            timestamp = 1763827200000 + 20 * step + offset
            price = special.get((first, timestamp), 67012.5 + 0.25 * ((step * 37) % 101 - 50))
            if timestamp < now:
                ticks.append(ListedTick("live", first, "BTCUSDT", price, timestamp))
    return MemoryMarket(ticks, now)
