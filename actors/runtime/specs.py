"""What a supervision tree is made of, as values: child and supervisor specs and the policies they choose."""

from __future__ import annotations

import dataclasses
import enum
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.runtime.actor import GeventActor


class Restart(enum.Enum):
    """When a child that ended is started again (as in Erlang/OTP)."""

    PERMANENT = "permanent"
    """Always, also after a stop of its own."""
    TRANSIENT = "transient"
    """After a failure only."""
    TEMPORARY = "temporary"
    """Never; it leaves the tree when it ends."""


class Strategy(enum.Enum):
    """Which siblings are restarted together with a child."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"

    def affected(self, names: Sequence[str], failed: str) -> list[str]:
        """Those of `names` (in start order) to stop in reverse and start in order when `failed` ends."""
        if self is Strategy.ONE_FOR_ONE:
            return [failed]
        if self is Strategy.ONE_FOR_ALL:
            return list(names)
        return list(names[names.index(failed) :])


@dataclasses.dataclass(frozen=True, slots=True)
class Intensity:
    """How many restarts, within how many seconds, a supervisor makes before it gives up itself."""

    restarts: int = 5
    within: float = 30.0

    def __post_init__(self) -> None:
        if self.restarts < 0 or self.within <= 0:
            raise ValueError(f"intensity needs restarts >= 0 and within > 0, got {self}")


class RestartWindow:
    """The restarts of the last seconds, counted against an intensity."""

    def __init__(self, intensity: Intensity) -> None:
        self._intensity = intensity
        self._times: deque[float] = deque()

    def exceeded_by(self, now: float) -> bool:
        """Count one restart at `now` (seconds, never going back); is it one too many?"""
        times = self._times
        times.append(now)
        while now - times[0] > self._intensity.within:
            times.popleft()
        return len(times) > self._intensity.restarts


@dataclasses.dataclass(frozen=True, slots=True)
class Backoff:
    """How long a supervisor waits before a restart: doubling, with jitter, forgotten after calm. In seconds."""

    initial: float = 0.05
    maximum: float = 5.0
    jitter: float = 0.5
    reset_after: float = 30.0

    def __post_init__(self) -> None:
        if not (0 <= self.initial <= self.maximum and 0 <= self.jitter <= 1 and self.reset_after >= 0):
            raise ValueError(f"backoff needs 0 <= initial <= maximum, 0 <= jitter <= 1, reset_after >= 0, got {self}")

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds before restart number `attempt` (from 0) in a row; `chance` in [0, 1) chooses the jitter."""
        # An exponent beyond 60 only overflows: the maximum is reached long before.
        full = min(self.maximum, self.initial * 2.0 ** min(attempt, 60))
        return full * (1.0 - self.jitter * chance)


@dataclasses.dataclass(frozen=True, slots=True)
class ChildSpec:
    """An actor in the tree: how to make it, and what its supervisor does for it.

    `shutdown` is how many seconds an ordered stop waits before it kills. With `drain_before_stop` an ordered
    stop handles first what already waits. `stuck_after` seconds in one message make it reported as stuck, and
    restarted if `restart_stuck`. An exception given to an asker is a failure only if it is one of
    `failures_from_ask`.
    """

    name: str
    actor_class: type[GeventActor]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    restart: Restart = Restart.PERMANENT
    shutdown: float = 5.0
    stuck_after: float | None = None
    restart_stuck: bool = False
    failures_from_ask: tuple[type[Exception], ...] = ()
    drain_before_stop: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)


@dataclasses.dataclass(frozen=True, slots=True)
class SupervisorSpec:
    """A supervisor in the tree, its children in start order, and what it does when one of them ends."""

    name: str
    strategy: Strategy = Strategy.ONE_FOR_ONE
    children: Sequence[ChildSpec | SupervisorSpec] = ()
    intensity: Intensity = dataclasses.field(default_factory=Intensity)
    backoff: Backoff = dataclasses.field(default_factory=Backoff)

    def __post_init__(self) -> None:
        check_name(self.name)
        names = [child.name for child in self.children]
        if len(set(names)) != len(names):
            raise ValueError(f"children of {self.name!r} need different names, got {names}")


def check_name(name: str) -> None:
    """Refuse what could not be one step of a path."""
    if not name or "/" in name:
        raise ValueError(f"a name is not empty and has no '/', got {name!r}")
