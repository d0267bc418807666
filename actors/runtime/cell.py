"""A place in the supervision tree: what outlives the lives of the actor in it, and how one life begins and ends."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from gevent.event import Event
from pykka import ActorDeadError, ActorRegistry

from actors.runtime.address import Address
from actors.runtime.events import Cause, Failed, Failure, Lifecycle, Started, Stopped
from actors.runtime.mailbox import EMPTY, Envelope, Internal, Mailbox, fail_reply
from actors.runtime.pykka_hooks import StopRequest
from actors.runtime.stuck import StuckWatch

if TYPE_CHECKING:
    from actors.runtime.actor import GeventActor
    from actors.runtime.future import GeventFuture
    from actors.runtime.specs import ChildSpec

KILL_GRACE = 1.0
"""Seconds a killed actor has for its `on_failure`, before it is killed again and left to itself."""


class State(enum.Enum):
    """Where an actor or a supervisor is in its life."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True)
class Terminated:
    """A watched actor has ended for good; `reason` says how its last life did, None for in order."""

    address: Address[Any]
    reason: Failure | None


class Watch:
    """A death watch that can be called off."""

    def __init__(self, watchers: set[Watch], tell: Callable[[Terminated], None]) -> None:
        self.tell = tell
        self._watchers = watchers
        watchers.add(self)

    def cancel(self) -> None:
        """Deliver nothing any more."""
        self._watchers.discard(self)


class Keeper(Protocol):
    """Whom a cell answers to: its supervisor, as far as the cell knows it."""

    path: str

    def child_ended(self, child: Any, failure: Failure | None) -> None:
        """The child's life ended without having been asked to by its keeper. Called in the hub: never blocks."""

    def publish(self, event: Lifecycle) -> None:
        """Tell the system's subscribers."""

    def dead_letter(self, path: str, message: Any, reason: str) -> None:
        """Count and keep a message that will never be handled."""


class Cell:
    """The mailbox, the address, the counters, and the actor that is alive now, if one is."""

    def __init__(self, spec: ChildSpec, keeper: Keeper | None = None) -> None:
        self.spec = spec
        self.name = spec.name
        self.keeper = keeper
        self.path = spec.name if keeper is None else f"{keeper.path}/{spec.name}"
        self.mailbox = Mailbox(spec.actor_class.mailbox, self.path, self.discard)
        self.actor: GeventActor | None = None
        self.address: Address[Any] = Address(self)
        self.state = State.NEW
        self.failure: Failure | None = None
        self.current: Any = EMPTY
        """The message in hand, the cell itself during a start; `EMPTY` between messages."""
        self.began = 0.0
        """When the message in hand, or the last one, was begun (monotonic seconds)."""
        self.busy = 0.0
        """Seconds spent in messages, up to the last pause between them."""
        self.handled = 0
        self.failures = 0
        self.restarts = 0
        self.last_failure: str | None = None
        # In words: the exception itself would keep the whole failed actor in memory.
        self.started_at = 0.0
        """When `on_start` was done (monotonic seconds); 0 before."""
        self.attempts = 0
        """Restarts in a row, as its supervisor's backoff counts them."""
        self.settled = Event()
        """Set once a launched life runs, or has ended."""
        self.stop_replies: list[GeventFuture[Any]] = []
        self._ended = Event()
        self._ended.set()
        self._greenlet: gevent.Greenlet[..., Any] | None = None
        self._kill_cause: Cause | None = None
        self._stopping = False
        self._watchers: set[Watch] = set()
        self._stuck_watch: StuckWatch | None = None

    # -- one life

    def launch(self) -> None:
        """Begin a life: make the actor and run it, in a new greenlet. Does not wait; see `settled`."""
        self._begin(gevent.Greenlet(self._build_and_live))

    def adopt(self, actor: GeventActor) -> None:
        """Begin the one life of an actor that was made by Pykka's `start`."""
        self.actor = actor
        self._begin(gevent.Greenlet(actor._live))

    def _begin(self, greenlet: gevent.Greenlet[..., Any]) -> None:
        self.state = State.STARTING
        self.failure = None
        self.started_at = 0.0
        self.current = self
        self.began = monotonic()
        self._kill_cause = None
        self._stopping = False
        self.settled.clear()
        self._ended.clear()
        self._greenlet = greenlet
        greenlet.rawlink(self._on_end)
        if self.spec.stuck_after is not None:
            self._stuck_watch = StuckWatch(self, self.spec.stuck_after)
        greenlet.start()

    def _build_and_live(self) -> Failure | None:
        spec = self.spec
        try:
            actor = spec.actor_class.__new__(spec.actor_class)
            actor._cell = self
            actor.__init__(*spec.args, **(spec.kwargs or {}))  # type: ignore[misc]  # only now, so that it finds its cell
        except BaseException as error:  # noqa: BLE001 - a failing constructor is a failing start
            return Failure(Cause.START, error)
        self.actor = actor
        return actor._live()

    def running(self) -> None:
        """The actor's `on_start` is done."""
        self.started_at = monotonic()
        self.current = EMPTY
        if not self._stopping:
            self.state = State.RUNNING
        self.publish(Started(self.path))
        self.settled.set()

    def _on_end(self, ended: Any) -> None:
        if self._greenlet is not None and ended is self._greenlet:
            outcome = ended.value
            if not isinstance(outcome, Failure) and (outcome is not None or not ended.successful()):
                # It was killed before its first step, or went on to interrupt the program.
                outcome = Failure(Cause.KILLED, ended.exception)
            self._end(outcome)

    def _end(self, failure: Failure | None) -> None:
        actor, self.actor = self.actor, None
        if failure is not None and self._kill_cause is not None:
            failure = Failure(self._kill_cause, failure.exception)
        if self._stuck_watch is not None:
            self._stuck_watch.cancel()
        self.failure = failure
        self._greenlet = None
        self.current = EMPTY
        self.state = State.STOPPED if failure is None else State.FAILED
        if failure is not None and not self._stopping:
            self.failures += 1
            self.last_failure = str(failure)
        if self.keeper is None:
            if actor is not None:
                ActorRegistry.unregister(actor.actor_ref)
            self.close()
        elif not self._stopping:
            self.keeper.child_ended(self, failure)
        self._ended.set()
        self.settled.set()
        replies, self.stop_replies = self.stop_replies, []
        for reply in replies:
            reply.set(None)

    @property
    def in_hand(self) -> float:
        """Seconds since the message in hand (or the start) was begun; 0 between messages."""
        return 0.0 if self.current is EMPTY else monotonic() - self.began

    @property
    def alive(self) -> bool:
        """Does a life go on, be it only starting or stopping?"""
        return self._greenlet is not None

    def holds(self, greenlet: object) -> bool:
        """Is it the actor's greenlet, or one that the actor spawned?"""
        return self._greenlet is not None and self._greenlet in (greenlet, getattr(greenlet, "owner", None))

    # -- ends that are wanted

    def stop(self, timeout: float | None = None) -> list[str]:
        """End the life in order, then by force; returns the paths that did not stop in time.

        `timeout` (seconds) can only shorten the spec's own `shutdown`.
        """
        greenlet = self._greenlet
        if greenlet is None:
            return []
        self._stopping = True
        self.state = State.STOPPING
        if self.actor is None:
            greenlet.kill(block=False)
        else:
            self.actor._finish(drain=self.spec.drain_before_stop)
        limit = self.spec.shutdown if timeout is None else min(timeout, self.spec.shutdown)
        in_time = self._ended.wait(max(0.0, limit))
        if not in_time:
            self._force(greenlet)
        self.publish(Stopped(self.path))
        return [] if in_time else [self.path]

    def kill(self, cause: Cause) -> None:
        """End the life by force and as a failure of this cause, to be seen by the supervisor. Blocks."""
        greenlet = self._greenlet
        if greenlet is not None:
            self._kill_cause = cause
            self._force(greenlet)

    def _force(self, greenlet: gevent.Greenlet[..., Any]) -> None:
        for _ in range(2):
            greenlet.kill(block=False)
            if self._ended.wait(KILL_GRACE) or greenlet is not self._greenlet:
                return
        # It will not die. Leave it behind: its mailbox will not listen to it any more.
        if self.actor is not None:
            self.actor._release()
        item, self.current = self.current, EMPTY
        if type(item) is Envelope:
            fail_reply(item, ActorDeadError(f"{self.path} did not finish the message"))
        self._end(Failure(Cause.KILLED))

    def close(self) -> None:
        """No life will follow: refuse and fail all messages, and tell the watchers. Idempotent."""
        if self.mailbox.closed:
            return
        self.mailbox.close()
        for watch in tuple(self._watchers):
            watch.cancel()
            self._notify(watch)

    # -- what others want to know

    def watch(self, tell: Callable[[Terminated], None]) -> Watch:
        """Call `tell`, which must not block, once this place is closed; at once if it is already."""
        watch = Watch(self._watchers, tell)
        if self.mailbox.closed:
            watch.cancel()
            self._notify(watch)
        return watch

    def _notify(self, watch: Watch) -> None:
        watch.tell(Terminated(self.address, self.failure))

    def publish(self, event: Lifecycle) -> None:
        """Tell the system's subscribers, if there is a system."""
        if self.keeper is not None:
            self.keeper.publish(event)

    def report_end(self) -> None:
        """Publish how the last life ended."""
        self.publish(Stopped(self.path) if self.failure is None else Failed(self.path, self.failure))

    def discard(self, message: Any, reason: str) -> None:
        """Hand a message that will not be handled to the dead letters."""
        if self.keeper is not None and not isinstance(message, Internal) and type(message) is not StopRequest:
            self.keeper.dead_letter(self.path, message, reason)
