"""The market as the API asks for it: a query goes to the actor that knows, and past it where that cannot answer."""

from collections.abc import Sequence
from sys import float_info
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from actors.cache import FRESH_MS
from actors.runtime import ActorInfo, ActorSystem
from marketflow import __version__
from marketflow.asking import AGGREGATOR, CACHE, MODES, answer
from marketflow.domain.mode import Mode
from marketflow.domain.period import Span
from marketflow.domain.summary import Summary
from marketflow.domain.view import Latest
from marketflow.errors import NoData, Unavailable, UnknownExchange, UnknownSymbol
from marketflow.metrics import NodeMeters
from marketflow.periods import Periods
from marketflow.ports import Clock, FeedStatus, Kind, LatestPrice, PeriodPrice, Source, Switched, WindowStore

SWITCH_SECONDS = 15.0
CATCH_UP_MS = 5_000
"""For how long after its start a node that waits for feeds is not ready: the lease of a node that was killed lapses
sooner, and whoever has one after that is alive."""


class NodeMarket:
    """Implements the port Market on the actors of a node."""

    def __init__(
        self,
        system: ActorSystem,
        store: WindowStore,
        periods: Periods,
        meters: NodeMeters,
        clock: Clock,
        registry: CollectorRegistry,
        *,
        symbols: Sequence[str],
        exchanges: Sequence[str],
        retention: int,
    ) -> None:
        self.retention = retention
        self._system = system
        self._cache = system.address(CACHE).proxy()
        self._aggregator = system.address(AGGREGATOR).proxy()
        self._modes = system.address(MODES).proxy()
        self._store = store
        self._periods = periods
        self._meters = meters
        self._clock = clock
        self._registry = registry
        self._symbols = frozenset(symbols)
        self._exchanges = frozenset(exchanges)
        self._began = clock.monotonic()
        self._caught_up = False

    # --- prices ---

    def latest(self, symbol: str, exchange: str | None = None) -> LatestPrice:
        """Return the tick with the greatest timestamp. Raises UnknownSymbol, UnknownExchange, NoData, Unavailable."""
        self._check(symbol, exchange)
        found: LatestPrice | None = answer(self._cache.latest(symbol, exchange))
        return found or self._stored_latest(symbol, exchange)

    def latest_all(self) -> tuple[Mode, list[LatestPrice]]:
        """Return the current mode and the latest price of every symbol and exchange that has one."""
        found: tuple[Mode, list[LatestPrice]] = answer(self._cache.latest_all())
        return found

    def period(self, kind: Kind, symbol: str, exchange: str | None, period: int) -> PeriodPrice:
        """Return the highest, lowest or average price over the last `period` ms. Raises as `latest` does."""
        self._check(symbol, exchange)
        mode, source, span, by_exchange = self._periods.of(symbol, exchange, period)
        if not by_exchange:
            raise NoData(f"no tick of {symbol}{f' on {exchange}' if exchange else ''} in the period")
        return _priced(kind, symbol, exchange, span, by_exchange, mode, source)

    def _stored_latest(self, symbol: str, exchange: str | None) -> LatestPrice:
        """Answer from PostgreSQL what neither Redis nor memory has."""
        mode: Mode = answer(self._cache.mode())
        closes: dict[str, Latest] = self._store.latest(mode, symbol, exchange)
        if not closes:
            raise NoData(f"no tick of {symbol}{f' on {exchange}' if exchange else ''} yet")
        name = max(closes, key=lambda name: closes[name].timestamp)
        close = closes[name]
        stale = self._clock.now() - close.timestamp > FRESH_MS
        return LatestPrice(symbol, name, close.price, close.timestamp, mode, "postgres", stale)

    def _check(self, symbol: str, exchange: str | None) -> None:
        if symbol not in self._symbols:
            raise UnknownSymbol(f"unknown symbol {symbol!r}")
        if exchange is not None and exchange not in self._exchanges:
            raise UnknownExchange(f"unknown exchange {exchange!r}")

    # --- mode ---

    def mode(self) -> Mode:
        """Return the mode in force."""
        mode: Mode = answer(self._cache.mode())
        return mode

    def switch(self, mode: Mode) -> Switched:
        """Put a mode in force; return once it is."""
        switched: Switched = answer(self._modes.switch(mode), SWITCH_SECONDS)
        return switched

    # --- health ---

    def health(self) -> dict[str, Any]:
        """Return the body of GET /health."""
        try:
            return self._health()
        except Unavailable as error:
            return {
                "status": "down",
                "mode": None,
                "version": __version__,
                "components": {"actors": {"status": "down", "reason": str(error)}},
            }

    def live(self) -> bool:
        """Tell whether the actor system runs."""
        return any(actor.path == CACHE and actor.state == "running" for actor in self._system.tree())

    def ready(self) -> bool:
        """Tell whether prices can be served, and at first also whether it is known what earlier runs left."""
        health = self.health()
        if health["status"] == "down":
            return False
        if not self._caught_up and health["components"]["redis"]["status"] == "ok":
            self._caught_up = self._clock.monotonic() > self._began + CATCH_UP_MS or self._is_caught_up()
            return self._caught_up
        return True

    def actors(self) -> list[dict[str, Any]]:
        """Return the supervision tree, parents before children."""
        return [_actor(actor) for actor in self._system.tree()]

    def metrics(self) -> bytes:
        """Return all metrics as Prometheus text."""
        return generate_latest(self._registry)

    def _is_caught_up(self) -> bool:
        """Tell whether every feed is read by some node, and this node knows what was left of its own."""
        try:
            return not answer(self._modes.free_feeds()) and bool(answer(self._aggregator.caught_up()))
        except Unavailable:
            return False

    def _health(self) -> dict[str, Any]:
        redis_up, redis_error = answer(self._cache.redis_status())
        store_up, store_error, waiting = answer(self._aggregator.store_status())
        feeds: dict[str, FeedStatus] = answer(self._modes.feeds())
        mode, prices = self.latest_all()
        tree = self._system.tree()
        broken = sorted(actor.path for actor in tree if actor.state != "running")
        counts_hold = self._meters.hold()
        components: dict[str, Any] = {
            "redis": {"status": "ok"} if redis_up else {"status": "down", "reason": redis_error},
            "postgres": {"status": "ok"} if store_up else {"status": "down", "reason": store_error},
            "exchanges": {
                exchange: {"status": feed.status, "last_tick_age_ms": feed.age} for exchange, feed in feeds.items()
            },
            "actors": {
                "status": "degraded" if broken else "ok",
                "restarts": sum(actor.restarts for actor in tree),
                "not_running": broken,
            },
            "ticks": {"status": "ok" if counts_hold else "violated", **self._meters.totals()},
        }
        components["postgres"]["windows_waiting"] = waiting
        whole = redis_up and store_up and counts_hold and not broken
        status = "ok" if whole and all(feed.status == "ok" for feed in feeds.values()) else "degraded"
        if not (redis_up or store_up or prices):
            status = "down"
        return {"status": status, "mode": mode, "version": __version__, "components": components}


def _priced(
    kind: Kind,
    symbol: str,
    exchange: str | None,
    span: Span,
    by_exchange: dict[str, Summary],
    mode: Mode,
    source: Source,
) -> PeriodPrice:
    ticks = sum(summary.count for summary in by_exchange.values())
    name: str | None = exchange
    time: int | None = None
    if kind == "average":
        # A total past all doubles is infinite, which JSON does not have.
        price = min(sum(summary.total for summary in by_exchange.values()) / ticks, float_info.max)
    elif kind == "highest":
        name = min(by_exchange, key=lambda each: (-by_exchange[each].high, by_exchange[each].high_time))
        price, time = by_exchange[name].high, by_exchange[name].high_time
    else:
        name = min(by_exchange, key=lambda each: (by_exchange[each].low, by_exchange[each].low_time))
        price, time = by_exchange[name].low, by_exchange[name].low_time
    return PeriodPrice(symbol, name, price, time, span.start, span.end, ticks, mode, source)


def _actor(actor: ActorInfo) -> dict[str, Any]:
    return {
        "name": actor.name,
        "path": actor.path,
        "kind": actor.kind,
        "parent": actor.parent,
        "state": actor.state,
        "mailbox": {"depth": actor.depth, "bound": actor.bound},
        "handled": actor.handled,
        "failures": actor.failures,
        "restarts": actor.restarts,
        "last_message_at": None if actor.last_message_at is None else round(actor.last_message_at * 1000),
        "busy_ms": round(actor.busy_seconds * 1000),
        "last_failure": actor.last_failure,
    }
