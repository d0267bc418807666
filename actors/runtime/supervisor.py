"""The supervisor: starts its children in order, restarts them by its strategy, and gives up when that is too often."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable
from time import monotonic
from typing import Any

import gevent
from gevent.event import Event
from gevent.queue import SimpleQueue

from actors.runtime.cell import Cell, Keeper, State
from actors.runtime.events import Cause, Escalated, Failed, Failure, Restarted, Started, Stopped
from actors.runtime.specs import ChildSpec, Restart, RestartWindow, Strategy, SupervisorSpec

logger = logging.getLogger("actors.runtime")


class _Plan:
    """Siblings that are being started, or stopped in reverse and started again, in a greenlet of their own."""

    def __init__(self, pending: list[Cell | Supervisor], delay: float) -> None:
        self.pending = pending
        self.delay = delay
        self.starting: Cell | Supervisor | None = None
        self.greenlet: gevent.Greenlet[..., Any] | None = None


class Supervisor:
    """Keeps its children running. One greenlet decides, event by event; plans carry out what takes time."""

    def __init__(self, spec: SupervisorSpec, keeper: Keeper, path: str) -> None:
        self.spec = spec
        self.name = spec.name
        self.path = path
        self.children: dict[str, Cell | Supervisor] = {}
        self.state = State.NEW
        self.failure: Failure | None = None
        self.failures = 0
        self.restarts = 0
        self.last_failure: str | None = None
        self.started_at = 0.0
        self.attempts = 0
        self.alive = False
        self.settled = Event()
        """Set once launched and whole, or ended."""
        self.publish = keeper.publish
        self.dead_letter = keeper.dead_letter
        self._keeper = keeper
        self._window = RestartWindow(spec.intensity)
        self._events: SimpleQueue[tuple[Cell | Supervisor, Failure | None]] = SimpleQueue()
        self._greenlet: gevent.Greenlet[..., Any] | None = None
        self._plans: list[_Plan] = []
        for child in spec.children:
            self._make(child)

    def _make(self, spec: ChildSpec | SupervisorSpec) -> Cell | Supervisor:
        node: Cell | Supervisor
        if isinstance(spec, SupervisorSpec):
            node = Supervisor(spec, self, f"{self.path}/{spec.name}")
        else:
            node = Cell(spec, self)
        self.children[spec.name] = node
        return node

    # -- its own life, asked for by its keeper

    def launch(self) -> None:
        """Begin to start the children in order. Does not wait; see `settled`."""
        self.state = State.STARTING
        self.failure = None
        self.started_at = 0.0
        self.alive = True
        self.settled.clear()
        self._window = RestartWindow(self.spec.intensity)
        self._events = SimpleQueue()
        self._greenlet = gevent.Greenlet(self._run)
        self._greenlet.rawlink(self._on_end)
        self._plan([node for node in self.children.values() if not _retired(node)], 0.0)
        self._greenlet.start()

    def stop(self, timeout: float | None = None) -> list[str]:
        """End all children, in reverse order; returns the paths that did not stop in time. Idempotent."""
        if not self.alive:
            return []
        self.state = State.STOPPING
        greenlet, self._greenlet = self._greenlet, None
        if greenlet is not None:
            greenlet.kill()
        self._drop(self._plans)
        deadline = None if timeout is None else monotonic() + timeout
        late = []
        for node in reversed(tuple(self.children.values())):
            late += node.stop(None if deadline is None else deadline - monotonic())
        self.alive = False
        self.state = State.STOPPED
        self.settled.set()
        self.publish(Stopped(self.path))
        return late

    def holds(self, greenlet: object) -> bool:
        """Does one of the actors below run in it?"""
        return any(node.holds(greenlet) for node in self.children.values())

    def close(self) -> None:
        """No life will follow, for none of the children. Idempotent."""
        for node in self.children.values():
            node.close()

    def report_end(self) -> None:
        """Publish how its life ended."""
        self.publish(Stopped(self.path) if self.failure is None else Failed(self.path, self.failure))

    # -- children that come and go

    def add(self, spec: ChildSpec | SupervisorSpec) -> Cell | Supervisor:
        """Add a child at the end, and start it if the supervisor runs. Does not wait. ValueError: name taken."""
        there = self.children.get(spec.name)
        if there is not None:
            if not _retired(there):
                raise ValueError(f"{self.path} has a child {spec.name!r} already")
            del self.children[spec.name]
        node = self._make(spec)
        if self.state in {State.STARTING, State.RUNNING}:
            if self._plans and (self.state is State.STARTING or self.spec.strategy is not Strategy.ONE_FOR_ONE):
                self._plans[-1].pending.append(node)
            else:
                self._plan([node], 0.0)
        return node

    def remove(self, node: Cell | Supervisor, timeout: float | None) -> list[str]:
        """Stop a child for good and forget it; returns the paths that did not stop in time."""
        del self.children[node.name]
        for plan in self._plans:
            if node in plan.pending:
                plan.pending.remove(node)
        late = node.stop(timeout)
        node.close()
        return late

    # -- what it decides

    def child_ended(self, child: Any, failure: Failure | None) -> None:
        """See `Keeper`."""
        self._events.put((child, failure))

    def _run(self) -> Failure:
        reason: Failure | None = None
        while reason is None:
            # Nothing of an event is kept while the next one is waited for: a traceback holds the whole actor.
            reason = self._decide(*self._events.get())
        return reason

    def _decide(self, node: Cell | Supervisor, failure: Failure | None) -> Failure | None:
        """Do what the end of a child asks for; the reason to give up, if that is one too many."""
        if self.children.get(node.name) is not node:
            return None
        node.report_end()
        plan = next((plan for plan in self._plans if node in plan.pending), None)
        if plan is not None and plan.starting is not node:
            return None  # it will be started anew anyway
        if not self._returns(node):
            self._retire(node)
        elif self._window.exceeded_by(monotonic()):
            reason = Failure(Cause.INTENSITY, failure.exception if failure else None)
            logger.error("%s gives up: more than %s", self.path, self.spec.intensity)
            self.publish(Escalated(self.path, reason))
            return reason
        else:
            self._restart(node)
        return None

    def _on_end(self, ended: Any) -> None:
        if self._greenlet is not None and ended is self._greenlet:
            failure = ended.value
            self.failure = failure if isinstance(failure, Failure) else Failure(Cause.KILLED, ended.exception)
            self.failures += 1
            self.last_failure = str(self.failure)
            self.state = State.FAILED
            self._keeper.child_ended(self, self.failure)
            self.settled.set()

    def _returns(self, node: Cell | Supervisor) -> bool:
        if self.children.get(node.name) is not node:
            return False
        restart = node.spec.restart if isinstance(node.spec, ChildSpec) else Restart.PERMANENT
        return restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and node.failure is not None)

    def _retire(self, node: Cell | Supervisor) -> None:
        node.close()
        if _temporary(node):
            del self.children[node.name]

    def _restart(self, node: Cell | Supervisor) -> None:
        backoff = self.spec.backoff
        if node.started_at and monotonic() - node.started_at >= backoff.reset_after:
            node.attempts = 0
        delay = backoff.delay(node.attempts, random.random())  # noqa: S311 - spreads restarts, guards no secret
        node.attempts += 1
        names = self.spec.strategy.affected(list(self.children), node.name)
        group = {name for name in names if not _retired(self.children[name])}
        overlapping = [plan for plan in self._plans if any(other.name in group for other in plan.pending)]
        self._drop(overlapping)
        group.update(other.name for plan in overlapping for other in plan.pending)
        logger.warning(
            "%s %s; restarting %s in %.3f s",
            node.path,
            "ended" if node.failure is None else f"failed ({node.failure})",
            ", ".join(name for name in self.children if name in group),
            delay,
            exc_info=node.failure.exception if node.failure else None,
        )
        self._plan([other for name, other in self.children.items() if name in group], delay)

    # -- what it carries out

    def _plan(self, nodes: list[Cell | Supervisor], delay: float) -> None:
        plan = _Plan(nodes, delay)
        self._plans.append(plan)
        plan.greenlet = gevent.spawn(self._carry_out, plan)

    def _drop(self, plans: Iterable[_Plan]) -> None:
        for plan in tuple(plans):
            self._plans.remove(plan)
            if plan.greenlet is not None:
                plan.greenlet.kill()

    def _clear_away(self, plan: _Plan) -> None:
        for node in reversed(tuple(plan.pending)):
            if node.alive:
                for path in node.stop():
                    logger.warning("%s did not stop in time for its restart", path)
            if _temporary(node):
                plan.pending.remove(node)
                self._retire(node)
        for node in plan.pending:
            if node.state is not State.NEW:
                node.state = State.RESTARTING

    def _carry_out(self, plan: _Plan) -> None:
        self._clear_away(plan)
        gevent.sleep(plan.delay)
        while plan.pending:
            node = plan.starting = plan.pending[0]
            again = node.state is not State.NEW
            node.restarts += again
            node.launch()
            node.settled.wait()
            if node.state is State.RUNNING:
                if again:
                    self.publish(Restarted(node.path, node.restarts))
            elif self._returns(node):
                return  # its end is an event already: what follows from it is decided there
            if node in plan.pending:
                plan.pending.remove(node)
        self._plans.remove(plan)
        if self.state is State.STARTING and not self._plans:
            self.state = State.RUNNING
            self.started_at = monotonic()
            self.publish(Started(self.path))
            self.settled.set()


def _temporary(node: Cell | Supervisor) -> bool:
    """Will it never be launched a second time?"""
    return isinstance(node.spec, ChildSpec) and node.spec.restart is Restart.TEMPORARY and node.state is not State.NEW


def _retired(node: Cell | Supervisor) -> bool:
    """Has it ended for good?"""
    return isinstance(node, Cell) and node.mailbox.closed
