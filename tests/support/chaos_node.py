"""A whole node in a process of its own that kills its actors in every way there is. Commands come on stdin, as lines;
answers go to stdout, as lines of JSON: see `main`."""

from gevent import monkey

monkey.patch_all()

import base64
import collections
import gc
import json
import random
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import gevent
import greenlet
import psutil
from gevent.fileobject import FileObject
from gevent.pywsgi import WSGIServer

from actors import aggregator as aggregator_module
from actors import exchange as exchange_module
from actors.aggregator import AggregatorActor
from actors.cache import CacheActor
from actors.exchange import ExchangeActor
from actors.messages import BarBatch, Batch
from actors.mode_supervisor import ModeSupervisorActor
from actors.price_worker import PriceWorkerActor
from actors.router import RouterActor
from actors.runtime import DeadLettered, GeventActor, Intensity, Lifecycle, SupervisorSpec
from marketflow import logs, node
from marketflow.adapters.clock import SystemClock
from marketflow.adapters.embedded import Endpoints
from marketflow.config import Settings

ACTORS = (CacheActor, AggregatorActor, PriceWorkerActor, RouterActor, ModeSupervisorActor, ExchangeActor)
FOR_EVER = Intensity(restarts=1_000_000, within=1.0)
"""The tests kill far more often than a node that is well would let pass."""


class SteppedClock(SystemClock):
    """The machine's clock, but for the steps that a test takes with it."""

    steps = 0

    def now(self) -> int:
        """Return the time of day, Unix ms."""
        return super().now() + type(self).steps


class Chaos(Exception):
    """Raised in a message or a start."""


class BaseChaos(BaseException):
    """Raised in a message or a start, and no Exception."""


class Faults:
    """Makes the next message, or the next starts, of an actor class fail."""

    def __init__(self, actor_class: type[GeventActor]) -> None:
        self.messages: collections.deque[BaseException] = collections.deque()
        self.starts: collections.deque[BaseException] = collections.deque()
        cls: Any = actor_class
        cls.on_receive = self._failing(cls.on_receive, self.messages)
        cls.on_start = self._failing(cls.on_start, self.starts)

    @staticmethod
    def _failing(original: Callable[..., Any], faults: collections.deque[BaseException]) -> Callable[..., Any]:
        def fail_or_do(self: Any, *arguments: Any) -> Any:
            if faults:
                raise faults.popleft()
            return original(self, *arguments)

        return fail_or_do


class Ledger:
    """Every batch that was read from an exchange, and which of them were lost."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("w")
        self._routed: set[tuple[str, int]] = set()
        self._read: set[tuple[str, int]] = set()
        self.lost: set[tuple[str, int]] = set()
        vars(exchange_module)["Batch"] = self._note_batch
        routed = self._routed
        handle = RouterActor.on_receive

        def route(router: RouterActor, batch: Batch) -> None:
            routed.add((batch.exchange, batch.order))
            handle(router, batch)

        setattr(RouterActor, "on_receive", route)  # noqa: B010  # to see what it gets; mypy refuses the plain form

    def _note_batch(self, *fields: Any) -> Batch:
        batch = Batch(*fields)
        self._read.add((batch.exchange, batch.order))
        data = base64.b64encode(batch.data).decode()
        self._file.write(json.dumps([batch.exchange, batch.order, batch.received_at, data]) + "\n")
        return batch

    def hear(self, event: Lifecycle) -> None:
        """Note a message that nobody handled."""
        if not isinstance(event, DeadLettered):
            return
        if isinstance(event.message, Batch):
            self._routed.add((event.message.exchange, event.message.order))
            self.lost.add((event.message.exchange, event.message.order))
        elif isinstance(event.message, BarBatch) and event.path == "root/aggregator":
            slices = next(iter(event.message.bars.values()))
            self.lost.add((event.message.exchange, next(iter(slices.values())).close_order))

    def close(self) -> list[tuple[str, int]]:
        """Return what was lost: what an actor failed on, and what an exchange actor was killed with in its hands."""
        self._file.close()
        return sorted(self.lost | (self._read - self._routed))


class Killer:
    """Kills random actors, one after the other, each in a random way."""

    def __init__(self, running: Any, faults: Mapping[type[GeventActor], Faults], seed: int) -> None:
        self._system = running
        self._faults = faults
        self._source = random.Random(seed)
        self.done: collections.Counter[str] = collections.Counter()
        self.ways: dict[str, Callable[[Any], None]] = {
            "exception in a message": lambda cell: self._fail(cell, Chaos("in a message")),
            "BaseException in a message": lambda cell: self._fail(cell, BaseChaos("in a message")),
            "Timeout in a message": lambda cell: self._fail(cell, gevent.Timeout(0)),
            "kill of its greenlet": lambda cell: cell._greenlet.kill(block=False),
            "kill of a child greenlet": self._kill_child,
            "failing starts": self._fail_starts,
        }

    def run(self, pause: float) -> None:
        """Go on until killed."""
        while True:
            gevent.sleep(self._source.uniform(0.2 * pause, 1.8 * pause))
            self.strike()

    def strike(self) -> None:
        """Kill one."""
        paths = [info.path for info in self._system.tree() if info.state == "running" and info.bound]
        if not paths:
            return
        path = self._source.choice(paths)
        way = self._source.choice(list(self.ways))
        cell = self._system.address(path).cell
        if cell.actor is None or cell._greenlet is None:
            return
        self.ways[way](cell)
        self.done[f"{way}: {cell.spec.actor_class.__name__}"] += 1

    def _fail(self, cell: Any, error: BaseException) -> None:
        self._faults[cell.spec.actor_class].messages.append(error)
        if cell.spec.actor_class in {ModeSupervisorActor, ExchangeActor}:  # which get hardly any
            cell.address.tell(None)

    def _kill_child(self, cell: Any) -> None:
        children = sorted(cell.actor._children, key=id)
        if children:
            self._source.choice(children).kill(block=False)
        else:
            cell._greenlet.kill(block=False)

    def _fail_starts(self, cell: Any) -> None:
        starts = self._faults[cell.spec.actor_class].starts
        starts += [Chaos("in a start"), BaseChaos("in a start")][: self._source.randint(1, 2)]
        cell._greenlet.kill(block=False)


def census() -> dict[str, Any]:
    """Count what could leak."""
    for _ in range(3):
        gc.collect()
    objects = gc.get_objects()
    return {
        "greenlets": sum(1 for each in objects if isinstance(each, greenlet.greenlet) and not each.dead),
        "actors": sum(1 for each in objects if isinstance(each, GeventActor)),
        "rss": psutil.Process().memory_info().rss,
    }


def main() -> None:
    """Take a first line of JSON: `settings`, `redis`, `postgres`, `ledger`, `seed`, `pause`, perhaps `most_waiting`.

    Then `census`, `chaos`, `calm` (answers once the tree is whole), `step N` (the clock by N ms), `ledger` (answers
    with what was lost) and `quit`.
    """
    commands = FileObject(sys.stdin.fileno(), "rb")
    told = json.loads(commands.readline())
    logs.configure("warning", "console")
    faults: dict[type[GeventActor], Faults] = {actor_class: Faults(actor_class) for actor_class in ACTORS}
    ledger = Ledger(Path(told["ledger"]))
    vars(node)["SystemClock"] = SteppedClock
    vars(aggregator_module)["MOST_WAITING"] = told.get("most_waiting", aggregator_module.MOST_WAITING)
    vars(node)["SupervisorSpec"] = partial(SupervisorSpec, intensity=FOR_EVER)
    settings = Settings(**(told["settings"] | {"log": {"level": "warning"}}))
    running = node.build(settings, Endpoints(told["redis"], told["postgres"]))
    system = running._system
    system.subscribe(ledger.hear)
    given_up: list[str] = []
    running.on_give_up(lambda: given_up.append("gave up"))
    running.start()
    server = WSGIServer(("127.0.0.1", 0), running.app, log=None)
    server.start()
    answer({"port": server.server_port})
    killer = Killer(system, faults, told["seed"])
    chaos = gevent.Greenlet(killer.run, told["pause"])
    for line in commands:
        command = line.decode().strip()
        if command == "census":
            answer(census())
        elif command == "chaos":
            chaos.start()
        elif command == "calm":
            chaos.kill()
            calm(system, faults)
            tree = [[info.path, info.state, info.restarts, info.depth] for info in system.tree()]
            answer({"tree": tree, "kills": killer.done, "given_up": given_up})
        elif command.startswith("step"):
            SteppedClock.steps += int(command.split()[1])
        elif command == "ledger":
            answer({"lost": ledger.close()})
        elif command == "quit":
            break
    server.stop()
    running.stop()
    answer({"stopped": True})


def calm(system: Any, faults: Mapping[type[GeventActor], Faults]) -> None:
    """Let the faults be that have not struck yet, and return when every actor runs and stays."""
    for each in faults.values():
        each.messages.clear()
        each.starts.clear()
    whole = 0
    while whole < 20:
        states = {info.state for info in system.tree()}
        whole = whole + 1 if states == {"running"} else 0
        gevent.sleep(0.05)


def answer(value: dict[str, Any]) -> None:
    """Tell the test."""
    sys.__stdout__.write(json.dumps(value) + "\n")  # type: ignore[union-attr]  # it is there
    sys.__stdout__.flush()  # type: ignore[union-attr]  # as above


if __name__ == "__main__":
    main()
