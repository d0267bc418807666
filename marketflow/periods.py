"""What the ticks of a period amount to: from the series, or from rows and windows in memory joined with it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import structlog
from gevent.event import Event
from pykka import ActorDeadError, Timeout

from actors.cache import Summaries
from actors.messages import Settle
from actors.runtime import ActorSystem
from marketflow.asking import AGGREGATOR, ASK_SECONDS, CACHE, answer
from marketflow.domain.mode import Mode
from marketflow.domain.period import Span, floor, span_of
from marketflow.domain.summary import Summary
from marketflow.errors import Unavailable
from marketflow.ports import Clock, Source
from marketflow.stored import Asked, StoredSummaries

AWAY_MS = 10_000
"""For how long PostgreSQL, having given no answer, is not asked again what the series alone can answer: when it stands
still, each question would wait for it in vain."""
NONE_EARLIER_MS = 1_000
"""For how long it counts that earlier runs left nothing; another node may find that they did."""
MOST_NONE_EARLIER = 50_000


class Period(NamedTuple):
    """What the ticks of a span amount to, by exchange, and where that comes from."""

    mode: Mode
    source: Source
    span: Span
    by_exchange: dict[str, Summary]


class Periods:
    """Answers from the cache and the aggregator of a node, and from what is stored. Times are in ms."""

    def __init__(self, system: ActorSystem, stored: StoredSummaries, clock: Clock, *, interval: int, held: int) -> None:
        """`interval` is the length of a window; the series holds the last `held` ms."""
        self._to_cache = system.address(CACHE)
        self._cache = self._to_cache.proxy()
        self._aggregator = system.address(AGGREGATOR).proxy()
        self._stored = stored
        self._clock = clock
        self._interval = interval
        self._held = held
        self._store_asked_again = 0
        self._none_earlier: dict[tuple[Mode, str, str | None, int], tuple[int, int]] = {}
        """From when on there is nothing of earlier runs (Unix ms), and when that was asked (monotonic ms); by mode,
        symbol, exchange and begin of the series."""
        self._log = structlog.get_logger("market")

    def of(self, symbol: str, exchange: str | None, period: int) -> Period:
        """Return what the last `period` ms amount to. Raises Unavailable."""
        now = self._clock.now()
        found = self._recent(symbol, exchange, span_of(now, period)) if period <= self._held else None
        return found or self._joined(symbol, exchange, span_of(now, period, self._interval))

    def _recent(self, symbol: str, exchange: str | None, span: Span) -> Period | None:
        """Answer from the series; None when ticks of the span are only known to PostgreSQL.

        That is so for some minutes after a node was started on a Redis that had lost what earlier runs wrote.
        """
        recent = self._series(symbol, exchange, span)
        start = floor(span.start, self._interval)
        if span.start < recent.since and not self._is_complete(symbol, exchange, start, recent):
            try:
                if self._has_earlier(symbol, exchange, start, recent):
                    return None
            except Unavailable as error:
                self._store_asked_again = self._clock.monotonic() + AWAY_MS
                self._log.warning("answering without what earlier runs may have stored", reason=str(error))
            recent = self._series(symbol, exchange, span)  # that took a while
        return Period(recent.mode, recent.source, span, recent.by_exchange)

    def _is_complete(self, symbol: str, exchange: str | None, start: int, recent: Summaries) -> bool:
        """Tell whether the series from `start` on is as good as it gets: nothing is missing, or nobody can tell."""
        now = self._clock.monotonic()
        found = self._none_earlier.get((recent.mode, symbol, exchange, recent.since))
        known = found is not None and found[0] <= start and now - found[1] < NONE_EARLIER_MS
        return known or now < self._store_asked_again

    def _has_earlier(self, symbol: str, exchange: str | None, start: int, recent: Summaries) -> bool:
        """Tell whether windows from `start` on have ticks that the series does not have.

        That there are none is kept for a while: there are none from later on then either.
        """
        asked_at = self._clock.monotonic()
        if self._look_earlier(symbol, exchange, start, recent):
            return True
        if len(self._none_earlier) >= MOST_NONE_EARLIER:
            self._none_earlier.clear()
        self._none_earlier[recent.mode, symbol, exchange, recent.since] = (start, asked_at)
        return False

    def _look_earlier(self, symbol: str, exchange: str | None, start: int, recent: Summaries) -> bool:
        begin = max(start, self._complete_from(recent))
        if recent.young and self._left(recent.mode, symbol, exchange, begin):
            return True
        span = Span(start, begin)
        windows = self._windows(recent.mode, symbol, exchange, span)
        # Ticks that came late have their windows before the series begins, and are in the series too, a moment later.
        if not windows or not _has_more(windows, self._series(symbol, exchange, span).by_exchange):
            return False
        self._settle()
        return _has_more(windows, self._series(symbol, exchange, span).by_exchange)

    def _series(self, symbol: str, exchange: str | None, span: Span) -> Summaries:
        found: Summaries = answer(self._cache.summaries(symbol, exchange, span))
        return found

    def _settle(self) -> None:
        """Wait until the series has what the windows have now."""
        settled = Event()
        try:
            self._to_cache.tell(Settle(settled), timeout=ASK_SECONDS)
        except (Timeout, ActorDeadError):
            return
        settled.wait(ASK_SECONDS)

    def _joined(self, symbol: str, exchange: str | None, span: Span) -> Period:
        """Join rows, windows that are not stored yet, and the slices since the first window that they cover whole."""
        boundary = -floor(-(span.end - self._held), self._interval)
        recent = self._series(symbol, exchange, Span(boundary, span.end))
        left: dict[str, Summary] = {}
        if boundary < recent.since:
            # The series begins in the middle of a window: what earlier runs left of that counts.
            boundary = self._complete_from(recent)
            recent = self._series(symbol, exchange, Span(boundary, span.end))
            if recent.young:
                left = self._left(recent.mode, symbol, exchange, boundary)
        windows = self._windows(recent.mode, symbol, exchange, Span(span.start, boundary))
        return Period(recent.mode, "postgres", span, _merged([windows, left, recent.by_exchange]))

    def _complete_from(self, recent: Summaries) -> int:
        """Return the start of the first window that the series covers, but for what earlier runs left of it.

        In the series of a node that started on an empty Redis that is the window it began in: all that earlier runs
        left is missing. A series from before this node's start has some of it, so it is the first whole window.
        """
        since = floor(recent.since, self._interval)
        return since if recent.young or since == recent.since else since + self._interval

    def _left(self, mode: Mode, symbol: str, exchange: str | None, start: int) -> dict[str, Summary]:
        """Return what earlier runs left of the windows that start at or after `start`, by exchange."""
        left: dict[str, Summary] = answer(self._aggregator.left(mode, symbol, start))
        return {name: left[name] for name in left if exchange in (None, name)}

    def _windows(self, mode: Mode, symbol: str, exchange: str | None, span: Span) -> dict[str, Summary]:
        """Return what the windows that start in a span amount to, by exchange: those in memory, and rows."""
        waiting = answer(self._aggregator.waiting(mode, symbol, span.start, span.end))
        without = frozenset((name, start) for name, (_, starts) in waiting.items() for start in starts)
        stored = self._stored.get(Asked(mode, symbol, exchange, span, without))
        return _merged([stored, {name: waiting[name][0] for name in waiting if exchange in (None, name)}])


def _merged(pieces: Sequence[Mapping[str, Summary]]) -> dict[str, Summary]:
    """Merge summaries by exchange."""
    merged: dict[str, Summary] = {}
    for piece in pieces:
        for name, summary in piece.items():
            merged[name] = summary.merge(merged[name]) if name in merged else summary
    return merged


def _has_more(windows: Mapping[str, Summary], series: Mapping[str, Summary]) -> bool:
    """Tell whether windows have ticks of an exchange that its series does not have."""
    return any(name not in series or windows[name].count > series[name].count for name in windows)
