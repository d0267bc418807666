"""What happens to actors, as values, and the bus that tells subscribers."""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("actors.runtime")


class Cause(enum.Enum):
    """What made an actor fail."""

    START = "start"
    MESSAGE = "message"
    CALL = "call"
    CHILD = "child greenlet"
    STOP = "stop"
    KILLED = "killed"
    STUCK = "stuck"
    IDLE = "while idle"
    INTENSITY = "restart intensity"


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why an actor or a supervisor failed: the exception, and what it was doing."""

    cause: Cause
    exception: BaseException | None = None

    def __str__(self) -> str:
        return self.cause.value if self.exception is None else f"{self.cause.value}: {self.exception!r}"


@dataclasses.dataclass(frozen=True, slots=True)
class Lifecycle:
    """Something that happened to the actor or supervisor at `path`."""

    path: str


@dataclasses.dataclass(frozen=True, slots=True)
class Started(Lifecycle):
    """It runs: `on_start` is done."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stopped(Lifecycle):
    """It ended in order."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failed(Lifecycle):
    """It ended by a failure."""

    reason: Failure


@dataclasses.dataclass(frozen=True, slots=True)
class Restarted(Lifecycle):
    """It runs again; `restarts` counts since the system was made."""

    restarts: int


@dataclasses.dataclass(frozen=True, slots=True)
class Escalated(Lifecycle):
    """A supervisor gave up: more restarts than its intensity allows."""

    reason: Failure


@dataclasses.dataclass(frozen=True, slots=True)
class Stuck(Lifecycle):
    """It has been in one message for `seconds`."""

    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLettered(Lifecycle):
    """A message sent to it will never be handled."""

    reason: str
    message: Any


Subscriber = Callable[[Lifecycle], None]


class EventBus:
    """Tells each subscriber of each event, in the greenlet where it happens: subscribers must not block."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback` with every event from now on; returns what ends that."""
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    def publish(self, event: Lifecycle) -> None:
        """Tell all subscribers; one that raises is logged and costs the others nothing."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception:
                logger.exception("A subscriber failed on %r", event)
