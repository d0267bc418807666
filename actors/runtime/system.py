"""The actor system: a supervision tree, its addresses, and what can be asked about it."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, overload

import gevent
from gevent.event import Event

from actors.runtime.address import Address
from actors.runtime.cell import Cell, State
from actors.runtime.dead_letters import DeadLetters
from actors.runtime.errors import DeadlockError, StartError, UnknownPathError
from actors.runtime.events import DeadLettered, EventBus, Failure, Lifecycle, Subscriber
from actors.runtime.mailbox import EMPTY
from actors.runtime.specs import ChildSpec, SupervisorSpec
from actors.runtime.supervisor import Supervisor

logger = logging.getLogger("actors.runtime")


@dataclasses.dataclass(frozen=True, slots=True)
class ActorInfo:
    """An actor or a supervisor as it is now. Times are Unix seconds, `busy_seconds` is time spent in messages.

    A supervisor has no mailbox: `depth` and `bound` are 0, and it handles no messages.
    """

    path: str
    name: str
    kind: str
    parent: str | None
    state: str
    depth: int
    bound: int
    handled: int
    failures: int
    restarts: int
    last_message_at: float | None
    busy_seconds: float
    last_failure: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class StopReport:
    """How an ordered stop went: the paths that had to be killed, and its seconds."""

    late: tuple[str, ...]
    seconds: float


class ActorSystem:
    """Runs the tree of `spec`. `on_give_up(failure)` is called, once, when the root has given up."""

    def __init__(self, spec: SupervisorSpec, on_give_up: Callable[[Failure], None] = lambda _failure: None) -> None:
        self.dead_letters = DeadLetters()
        self.path = ""
        self._bus = EventBus()
        self._on_give_up = on_give_up
        self._gave_up: Failure | None = None
        self._report: StopReport | None = None
        self._stopping = False
        self._stopped = Event()
        self._root = Supervisor(spec, self, spec.name)

    # -- the tree

    def address(self, path: str) -> Address[Any]:
        """The address of an actor; valid from before its start until after its end. Raises `UnknownPathError`."""
        node = self._find(path)
        if not isinstance(node, Cell):
            raise UnknownPathError(f"{path!r} is a supervisor: it has no address")
        return node.address

    @overload
    def add_child(self, path: str, spec: ChildSpec) -> Address[Any]: ...

    @overload
    def add_child(self, path: str, spec: SupervisorSpec) -> None: ...

    def add_child(self, path: str, spec: ChildSpec | SupervisorSpec) -> Address[Any] | None:
        """Add a child under the supervisor at `path`; its address, or None for a supervisor. Does not wait.

        Before `start` it only joins the tree. Raises `UnknownPathError`, `ValueError` if the name is taken,
        `StartError` if the system stops.
        """
        if self._stopping:
            raise StartError("the system stops")
        node = self._supervisor(path).add(spec)
        return node.address if isinstance(node, Cell) else None

    def remove_child(self, path: str, timeout: float | None = None) -> StopReport:
        """Stop the child at `path` for good and take it out of the tree.

        Raises `UnknownPathError`, and `DeadlockError` in an actor that would wait for its own end.
        """
        began = time.monotonic()
        node = self._find(path)
        _refuse_from_within(node)
        parent, _, _ = path.rpartition("/")
        late = self._supervisor(parent).remove(node, timeout)
        return StopReport(tuple(late), time.monotonic() - began)

    def tree(self) -> list[ActorInfo]:
        """All actors and supervisors, parents before children, siblings in start order."""
        return list(_describe(self._root, None, time.time() - time.monotonic()))

    def _find(self, path: str) -> Cell | Supervisor:
        first, *rest = path.split("/")
        node: Cell | Supervisor | None = self._root if first == self._root.name else None
        for name in rest:
            node = node.children.get(name) if isinstance(node, Supervisor) else None
        if node is None:
            raise UnknownPathError(f"nothing at {path!r}")
        return node

    def _supervisor(self, path: str) -> Supervisor:
        node = self._find(path)
        if not isinstance(node, Supervisor):
            raise UnknownPathError(f"{path!r} is no supervisor")
        return node

    # -- life

    def start(self, timeout: float | None = None) -> None:
        """Start all, in order, and wait until all runs. A system starts once.

        Raises `StartError` if the root gave up, if it was stopped meanwhile, or after `timeout` seconds (what
        has started by then runs on: stop it).
        """
        if self._root.alive or self._stopping or self._gave_up:
            raise StartError("a system starts once")
        self._root.launch()
        self._root.settled.wait(timeout)
        if self._gave_up is not None:
            raise StartError(f"gave up: {self._gave_up}") from self._gave_up.exception
        if self._root.state is not State.RUNNING:
            waiting = [info.path for info in self.tree() if info.state != State.RUNNING.value]
            raise StartError(f"not running in time: {', '.join(waiting)}")

    def stop(self, timeout: float | None = None) -> StopReport:
        """Stop all, in reverse order, within `timeout` seconds; what is later is killed. Idempotent.

        Raises `DeadlockError` in one of its actors, which would wait for its own end.
        """
        _refuse_from_within(self._root)
        if self._stopping:
            self._stopped.wait()
        else:
            self._stopping = True
            self._take_down(timeout)
        return self._report or StopReport((), 0.0)

    def _take_down(self, timeout: float | None) -> None:
        began = time.monotonic()
        late = self._root.stop(timeout)
        self._root.close()
        self._report = StopReport(tuple(late), time.monotonic() - began)
        self._stopped.set()

    # -- what it tells

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback(event)`, which must not block, with every lifecycle event; returns what ends that."""
        return self._bus.subscribe(callback)

    def publish(self, event: Lifecycle) -> None:
        """See `Keeper`."""
        self._bus.publish(event)

    def dead_letter(self, path: str, message: Any, reason: str) -> None:
        """See `Keeper`."""
        self.dead_letters.add(path, message, reason)
        self._bus.publish(DeadLettered(path, reason, message))

    def child_ended(
        self,
        child: Any,  # noqa: ARG002 - there is only one, the root
        failure: Failure | None,
    ) -> None:
        """The root has given up. See `Keeper`."""
        if failure is not None and not self._stopping:
            self._stopping = True
            self._gave_up = failure
            gevent.spawn(self._give_up, failure)

    def _give_up(self, failure: Failure) -> None:
        logger.critical("The actor system gives up: %s", failure)
        self._take_down(None)
        self._on_give_up(failure)


def _refuse_from_within(node: Cell | Supervisor) -> None:
    if node.holds(gevent.getcurrent()):
        raise DeadlockError(f"an actor at or below {node.path} cannot wait for its own end")


def _describe(node: Cell | Supervisor, parent: str | None, offset: float) -> Iterator[ActorInfo]:
    cell = node if isinstance(node, Cell) else None
    yield ActorInfo(
        path=node.path,
        name=node.name,
        kind=cell.spec.actor_class.__name__ if cell else "Supervisor",
        parent=parent,
        state=node.state.value,
        depth=len(cell.mailbox) if cell else 0,
        bound=cell.mailbox.spec.bound if cell else 0,
        handled=cell.handled if cell else 0,
        failures=node.failures,
        restarts=node.restarts,
        last_message_at=cell.began + offset if cell and (cell.handled or cell.current is not EMPTY) else None,
        busy_seconds=cell.busy + cell.in_hand if cell else 0.0,
        last_failure=node.last_failure,
    )
    if isinstance(node, Supervisor):
        for child in node.children.values():
            yield from _describe(child, node.path, offset)
