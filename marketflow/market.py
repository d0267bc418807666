"""The market as the API asks for it: a query goes to the actor that knows, and past it where that cannot answer."""

from collections.abc import Mapping, Sequence
from sys import float_info
from typing import Any, NamedTuple

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from pykka import ActorDeadError, Timeout

from actors.cache import FRESH_MS, Summaries
from actors.runtime import ActorInfo, ActorSystem
from marketflow import __version__
from marketflow.domain.mode import Mode
from marketflow.domain.period import Span, floor, span_of
from marketflow.domain.summary import Summary
from marketflow.domain.view import Latest
from marketflow.errors import NoData, Unavailable, UnknownExchange, UnknownSymbol
from marketflow.metrics import NodeMeters
from marketflow.ports import Clock, FeedStatus, Kind, LatestPrice, PeriodPrice, Source, Switched, WindowStore
from marketflow.stored import Asked, StoredSummaries

ASK_SECONDS = 1.0
AWAY_MS = 10_000
"""For how long PostgreSQL, having given no answer, is not asked again what the series alone can answer: when it stands
still, each question would wait for it in vain."""
CATCH_UP_MS = 5_000
"""For how long after its start a node that waits for feeds is not ready: the lease of a node that was killed lapses
sooner, and whoever has one after that is alive."""
SWITCH_SECONDS = 15.0
CACHE, AGGREGATOR, MODES_PATH = "root/cache", "root/aggregator", "root/mode_supervisor"


class _Answer(NamedTuple):
    mode: Mode
    source: Source
    span: Span
    by_exchange: dict[str, Summary]


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
        self._store_asked_again = 0
        self._began = clock.monotonic()
        self._caught_up = False
        self._log = structlog.get_logger("market")

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
        answer = self._recent(symbol, exchange, span_of(now, period)) if period <= self._held else None
        if answer is None:
            answer = self._joined(symbol, exchange, span_of(now, period, self._interval))
        mode, source, span, by_exchange = answer
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
        close = closes[name]
        stale = self._clock.now() - close.timestamp > FRESH_MS
        return LatestPrice(symbol, name, close.price, close.timestamp, mode, "postgres", stale)

    def _recent(self, symbol: str, exchange: str | None, span: Span) -> _Answer | None:
        """Answer from the series; None when ticks of the span are only known to PostgreSQL.

        That is so for some minutes after a node was started on a Redis that had lost what earlier runs wrote.
        """
        recent: Summaries = self._get(self._cache.summaries(symbol, exchange, span))
        if span.start < recent.since and self._clock.monotonic() >= self._store_asked_again:
            try:
                if self._has_earlier(symbol, exchange, floor(span.start, self._interval), recent):
                    return None
            except Unavailable as error:
                self._store_asked_again = self._clock.monotonic() + AWAY_MS
                self._log.warning("answering without what earlier runs may have stored", reason=str(error))
        return _Answer(recent.mode, recent.source, span, recent.by_exchange)

    def _has_earlier(self, symbol: str, exchange: str | None, start: int, recent: Summaries) -> bool:
        """Tell whether windows from `start` on have ticks that the series does not have."""
        begin = max(start, self._complete_from(recent))
        if recent.young and self._left(recent.mode, symbol, exchange, begin):
            return True
        windows = self._windows(recent.mode, symbol, exchange, Span(start, begin))
        if not windows:
            return False
        # Ticks that came late have their windows before the series begins, and are in both.
        late: Summaries = self._get(self._cache.summaries(symbol, exchange, Span(start, begin)))
        return any(
            name not in late.by_exchange or windows[name].count > late.by_exchange[name].count for name in windows
        )

    def _joined(self, symbol: str, exchange: str | None, span: Span) -> _Answer:
        """Join rows, windows that are not stored yet, and the slices since the first window that they cover whole."""
        boundary = -floor(-(span.end - self._held), self._interval)
        recent: Summaries = self._get(self._cache.summaries(symbol, exchange, Span(boundary, span.end)))
        left: dict[str, Summary] = {}
        if (
            boundary < recent.since
        ):  # the series begins in the middle of a window: what earlier runs left of that counts
            boundary = self._complete_from(recent)
            recent = self._get(self._cache.summaries(symbol, exchange, Span(boundary, span.end)))
            if recent.young:
                left = self._left(recent.mode, symbol, exchange, boundary)
        windows = self._windows(recent.mode, symbol, exchange, Span(span.start, boundary))
        return _Answer(recent.mode, "postgres", span, _merged([windows, left, recent.by_exchange]))

    def _complete_from(self, recent: Summaries) -> int:
        """Return the start of the first window that the series covers, but for what earlier runs left of it.

        In the series of a node that started on an empty Redis that is the window it began in: all that earlier runs
        left is missing. A series from before this node's start has some of it, so it is the first whole window.
        """
        since = floor(recent.since, self._interval)
        return since if recent.young or since == recent.since else since + self._interval

    def _left(self, mode: Mode, symbol: str, exchange: str | None, start: int) -> dict[str, Summary]:
        """Return what earlier runs left of the windows that start at or after `start`, by exchange."""
        left: dict[str, Summary] = self._get(self._aggregator.left(mode, symbol, start))
        return {name: left[name] for name in left if exchange in (None, name)}

    def _windows(self, mode: Mode, symbol: str, exchange: str | None, span: Span) -> dict[str, Summary]:
        """Return what the windows that start in a span amount to, by exchange: those in memory, and rows."""
        waiting = self._get(self._aggregator.waiting(mode, symbol, span.start, span.end))
        without = frozenset((name, start) for name, (_, starts) in waiting.items() for start in starts)
        stored = self._stored.get(Asked(mode, symbol, exchange, span, without))
        return _merged([stored, {name: waiting[name][0] for name in waiting if exchange in (None, name)}])

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
            return not self._get(self._modes.free_feeds()) and bool(self._get(self._aggregator.caught_up()))
        except Unavailable:
            return False

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


def _merged(pieces: Sequence[Mapping[str, Summary]]) -> dict[str, Summary]:
    """Merge summaries by exchange."""
    merged: dict[str, Summary] = {}
    for piece in pieces:
        for name, summary in piece.items():
            merged[name] = summary.merge(merged[name]) if name in merged else summary
    return merged


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
