"""The market as the API asks for it: a query goes to the actor that knows, and past it where that cannot answer."""

from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from pykka import ActorDeadError, Timeout

from actors.cache import FRESH_MS, Summaries
from actors.runtime import ActorInfo, ActorSystem
from marketflow import __version__
from marketflow.domain.mode import Mode
from marketflow.domain.period import Span, floor, span_of
from marketflow.domain.summary import Summary
from marketflow.errors import NoData, Unavailable, UnknownExchange, UnknownSymbol
from marketflow.metrics import NodeMeters
from marketflow.ports import (
    Clock,
    FeedStatus,
    Kind,
    Latest,
    LatestPrice,
    PeriodPrice,
    Source,
    Switched,
    WindowStore,
)
from marketflow.stored import Asked, StoredSummaries

ASK_SECONDS = 1.0
SWITCH_SECONDS = 15.0
CACHE, AGGREGATOR, MODES_PATH = "root/cache", "root/aggregator", "root/mode_supervisor"


class NodeMarket:
    """Implements the port Market on the actors of a node."""

    def __init__(
        self,
        system: ActorSystem,
        store: WindowStore,
        stored: StoredSummaries,
        meters: NodeMeters,
        clock: Clock,
        registry: CollectorRegistry,
        *,
        symbols: Sequence[str],
        exchanges: Sequence[str],
        interval: int,
        held: int,
        retention: int,
    ) -> None:
        self.retention = retention
        self._system = system
        self._cache = system.address(CACHE).proxy()
        self._aggregator = system.address(AGGREGATOR).proxy()
        self._modes = system.address(MODES_PATH).proxy()
        self._store = store
        self._stored = stored
        self._meters = meters
        self._clock = clock
        self._registry = registry
        self._symbols = frozenset(symbols)
        self._exchanges = frozenset(exchanges)
        self._interval = interval
        self._held = held

    # --- prices ---

    def latest(self, symbol: str, exchange: str | None = None) -> LatestPrice:
        """Return the tick with the greatest timestamp. Raises UnknownSymbol, UnknownExchange, NoData, Unavailable."""
        self._check(symbol, exchange)
        found: LatestPrice | None = self._get(self._cache.latest(symbol, exchange))
        return found or self._stored_latest(symbol, exchange)

    def latest_all(self) -> tuple[Mode, list[LatestPrice]]:
        """Return the current mode and the latest price of every symbol and exchange that has one."""
        found: tuple[Mode, list[LatestPrice]] = self._get(self._cache.latest_all())
        return found

    def period(self, kind: Kind, symbol: str, exchange: str | None, period: int) -> PeriodPrice:
        """Return the highest, lowest or average price over the last `period` ms. Raises as `latest` does."""
        self._check(symbol, exchange)
        now = self._clock.now()
        if period <= self._held:
            span = span_of(now, period)
            recent: Summaries = self._get(self._cache.summaries(symbol, exchange, span))
            by_exchange, mode, source = recent.by_exchange, recent.mode, recent.source
        else:
            span = span_of(now, period, self._interval)
            by_exchange, mode = self._stored_summaries(symbol, exchange, span)
            source = "postgres"
        if not by_exchange:
            raise NoData(f"no tick of {symbol}{f' on {exchange}' if exchange else ''} in the period")
        return _priced(kind, symbol, exchange, span, by_exchange, mode, source)

    def _stored_latest(self, symbol: str, exchange: str | None) -> LatestPrice:
        """Answer from PostgreSQL what neither Redis nor memory has."""
        mode: Mode = self._get(self._cache.mode())
        closes: dict[str, Latest] = self._store.latest(mode, symbol, exchange)
        if not closes:
            raise NoData(f"no tick of {symbol}{f' on {exchange}' if exchange else ''} yet")
        name = max(closes, key=lambda name: closes[name].timestamp)
        price, timestamp = closes[name]
        stale = self._clock.now() - timestamp > FRESH_MS
        return LatestPrice(symbol, name, price, timestamp, mode, "postgres", stale)

    def _stored_summaries(self, symbol: str, exchange: str | None, span: Span) -> tuple[dict[str, Summary], Mode]:
        """Join rows, windows that are not stored yet, and the slices since the first window that they cover whole."""
        boundary = -floor(-(span.end - self._held), self._interval)
        recent: Summaries = self._get(self._cache.summaries(symbol, exchange, Span(boundary, span.end)))
        mode = recent.mode
        waiting = self._get(self._aggregator.waiting(mode, symbol, span.start, boundary))
        without = frozenset((name, start) for name, (_, starts) in waiting.items() for start in starts)
        found = dict(self._stored.get(Asked(mode, symbol, exchange, Span(span.start, boundary), without)))
        pieces = [recent.by_exchange, {name: summary for name, (summary, _) in waiting.items()}]
        for name, summary in (item for piece in pieces for item in piece.items()):
            if exchange is None or name == exchange:
                found[name] = summary.merge(found[name]) if name in found else summary
        return found, mode

    def _check(self, symbol: str, exchange: str | None) -> None:
        if symbol not in self._symbols:
            raise UnknownSymbol(f"unknown symbol {symbol!r}")
        if exchange is not None and exchange not in self._exchanges:
            raise UnknownExchange(f"unknown exchange {exchange!r}")

    # --- mode ---

    def mode(self) -> Mode:
        """Return the mode in force."""
        mode: Mode = self._get(self._cache.mode())
        return mode

    def switch(self, mode: Mode) -> Switched:
        """Put a mode in force; return once it is."""
        switched: Switched = self._get(self._modes.switch(mode), SWITCH_SECONDS)
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
        """Tell whether prices can be served."""
        return bool(self.health()["status"] != "down")

    def actors(self) -> list[dict[str, Any]]:
        """Return the supervision tree, parents before children."""
        return [_actor(actor) for actor in self._system.tree()]

    def metrics(self) -> bytes:
        """Return all metrics as Prometheus text."""
        return generate_latest(self._registry)

    def _health(self) -> dict[str, Any]:
        redis_up, redis_error = self._get(self._cache.redis_status())
        store_up, store_error, waiting = self._get(self._aggregator.store_status())
        feeds: dict[str, FeedStatus] = self._get(self._modes.feeds())
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

    def _get(self, future: Any, seconds: float = ASK_SECONDS) -> Any:
        try:
            return future.get(timeout=seconds)
        except (Timeout, ActorDeadError) as error:
            raise Unavailable("an actor does not answer; it is busy or being restarted") from error


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
        price = sum(summary.total for summary in by_exchange.values()) / ticks
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
