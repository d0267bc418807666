"""Messages that will never be handled: counted by reason, and the last ones kept for inspection."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, deque
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message, whom it was for, why it was not handled, and when (Unix seconds)."""

    path: str
    message: Any
    reason: str
    at: float


class DeadLetters:
    """Counts for ever, keeps the last `keep` only."""

    def __init__(self, keep: int = 32) -> None:
        self.counts: Counter[str] = Counter()
        self._last: deque[DeadLetter] = deque(maxlen=keep)

    def add(self, path: str, message: Any, reason: str) -> None:
        """Record one message under its reason: failed, stopped, dead, rejected, dropped or killed."""
        self.counts[reason] += 1
        self._last.append(DeadLetter(path, message, reason, time.time()))

    @property
    def last(self) -> list[DeadLetter]:
        """The newest dead letters, oldest first."""
        return list(self._last)
