"""What stored rows amount to over a span: asked of PostgreSQL once, and kept as long as the rows cannot change."""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from gevent.event import AsyncResult

from marketflow.domain.mode import Mode
from marketflow.domain.period import Span
from marketflow.domain.summary import Summary
from marketflow.ports import Clock, WindowStore

KEPT = 10_000
SHARED_MS = 1_000
"""For how long an answer is kept when other nodes may store windows unseen."""


class Asked(NamedTuple):
    """A question to the store. Windows that this node may still change are among those left out: (exchange, start)."""

    mode: Mode
    symbol: str
    exchange: str | None
    span: Span
    without: frozenset[tuple[str, int]]


class StoredSummaries:
    """Answers by question. Who asks what another is asking already waits for the same answer."""

    def __init__(self, store: WindowStore, clock: Clock, shared: Callable[[], bool]) -> None:
        self._store = store
        self._clock = clock
        self._shared = shared
        self._answers: OrderedDict[Asked, tuple[int, AsyncResult[dict[str, Summary]]]] = OrderedDict()

    def get(self, asked: Asked) -> dict[str, Summary]:
        """Return, by exchange, what the rows of a span amount to. Raises Unavailable."""
        known = self._answers.get(asked)
        now = self._clock.monotonic()
        if known is not None and not (self._shared() and now - known[0] > SHARED_MS):
            kept: dict[str, Summary] = known[1].get()  # type: ignore[assignment]  # gevent types get() as optional
            return kept
        answer: AsyncResult[dict[str, Summary]] = AsyncResult()
        self._answers[asked] = (now, answer)
        try:
            mode, symbol, exchange, (start, end), without = asked
            found = self._store.summarize(mode, symbol, exchange, start, end, without)
        except BaseException as error:
            del self._answers[asked]
            answer.set_exception(error)
            raise
        answer.set(found)
        if len(self._answers) > KEPT:
            self._answers.popitem(last=False)
        return found
