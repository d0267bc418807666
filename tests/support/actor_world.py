"""An actor system under test: what it told and what its actors noted, to wait on, and an actor to do anything."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from gevent.event import Event

from actors.runtime import ActorSystem, Backoff, ChildSpec, Failure, GeventActor, Lifecycle, SupervisorSpec

DEADLINE = 5.0
QUICK = Backoff(initial=0.001, maximum=0.01)


class World:
    """One system under test, everything it told, and everything its actors noted."""

    def __init__(self) -> None:
        self.events: list[Lifecycle] = []
        self.notes: list[Any] = []
        self.given_up: list[Failure] = []
        self.on_start: dict[str, list[Callable[[], object]]] = {}
        """What the next starts of a probe, by its label, do."""
        self.system: ActorSystem | None = None
        self._news = Event()

    def make(self, *children: ChildSpec | SupervisorSpec, **options: Any) -> ActorSystem:
        """A system with these children of the root, not yet started."""
        options.setdefault("backoff", QUICK)
        self.system = ActorSystem(SupervisorSpec("root", children=children, **options), on_give_up=self._give_up)
        self.system.subscribe(self._record)
        return self.system

    def run(self, *children: ChildSpec | SupervisorSpec, **options: Any) -> ActorSystem:
        """The same, started."""
        system = self.make(*children, **options)
        system.start(timeout=DEADLINE)
        return system

    def note(self, note: Any) -> None:
        """For actors: what they did, in order."""
        self.notes.append(note)
        self._news.set()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that comes with an event or a note."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            self._news.clear()
            self._news.wait(0.01)
            assert time.monotonic() < deadline, f"not so in time: {self.events=} {self.notes=}"

    def wait_for(self, kind: type[Lifecycle], path: str, count: int = 1) -> Any:
        """The count-th event of this kind at this path, once there."""

        def found() -> list[Lifecycle]:
            return [event for event in self.events if type(event) is kind and event.path == path]

        self.wait_until(lambda: len(found()) >= count)
        return found()[count - 1]

    def _record(self, event: Lifecycle) -> None:
        self.events.append(event)
        self._news.set()

    def _give_up(self, failure: Failure) -> None:
        self.given_up.append(failure)
        self._news.set()


class Probe(GeventActor):
    """Does what it is told: a message that can be called is called with the actor, any other is noted."""

    def __init__(self, world: World, label: str = "") -> None:
        super().__init__()
        self.world = world
        self.label = label or self.name
        self.value = "initial"

    def on_start(self) -> None:
        self.world.note(("start", self.label))
        for_start = self.world.on_start.get(self.label)
        if for_start:
            for_start.pop(0)()

    def on_stop(self) -> None:
        self.world.note(("stop", self.label))

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.world.note(("failure", self.label, exception_type))

    def on_receive(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        self.world.note(message)
        return message

    def echo(self, value: Any) -> Any:
        return value

    def fail(self, error: BaseException) -> None:
        raise error


def failing(error: BaseException) -> Callable[[Probe], None]:
    """A message that fails."""

    def fail(probe: Probe) -> None:
        probe.fail(error)

    return fail
