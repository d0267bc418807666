"""The system under measurement: the real MarketFlow with everything on, and what its node costs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.load.machine import cpu_of
from tests.support.system import Config, System, installed
from tests.support.waiting import let_pass, wait_until

MB = 1e6


class Sample(NamedTuple):
    """What a node had done by a time."""

    time: float
    cpu: float
    ticks: float


class Stretch(NamedTuple):
    """What a node did in a stretch of time."""

    seconds: float
    ticks: float
    cpu: float

    @property
    def rate(self) -> float:
        """Ticks per second."""
        return self.ticks / self.seconds

    @property
    def cost(self) -> float:
        """CPU microseconds per tick."""
        return self.cpu / max(1.0, self.ticks) * 1e6

    @property
    def cores(self) -> float:
        """Cores in use."""
        return self.cpu / self.seconds


class Measured:
    """A running system and its workers."""

    def __init__(self, system: System) -> None:
        self.system = system
        servers = [each for each in system.processes() if "marketflow.server" in each.cmdline()]
        known = {each.pid for each in servers}
        self.workers = [each for each in servers if each.ppid() in known]

    @property
    def port(self) -> int:
        """Where it serves."""
        return self.system.port

    def cpu(self) -> float:
        """Return the CPU seconds of its nodes."""
        return sum(map(cpu_of, self.workers))

    def rss(self) -> float:
        """Return the resident bytes of its nodes."""
        return float(sum(worker.memory_info().rss for worker in self.workers))

    def memory(self) -> float:
        """Return the bytes of all its Python processes, what they share counted once."""
        processes = [each for each in self.system.processes() if each.name().startswith("python")]
        return float(sum(each.memory_full_info().pss for each in processes))

    def memory_of(self, program: str) -> float:
        """Return the bytes of the processes of a program that runs for it, what they share counted once."""
        found = [each for each in self.system.processes() if each.name() == program]
        return float(sum(each.memory_full_info().pss for each in found))

    def ticks(self) -> float:
        """Return the ticks that are part of their windows."""
        return self.system.metric("marketflow_ticks_aggregated_total")

    def sample(self) -> Sample:
        """Return what was done by now."""
        ticks = self.ticks()
        return Sample(time.monotonic(), self.cpu(), ticks)

    def measure(self, seconds: float) -> Stretch:
        """Let it work for some seconds."""
        before = self.sample()
        let_pass(seconds)
        return self.since(before)

    def since(self, before: Sample) -> Stretch:
        """Return what was done since a sample."""
        after = self.sample()
        return Stretch(after.time - before.time, after.ticks - before.ticks, after.cpu - before.cpu)

    def wait_for_ticks(self, more: float = 1) -> None:
        """Return once so many more ticks are in."""
        before = self.ticks()
        wait_until(lambda: self.ticks() >= before + more, "ticks arrive", 30)

    def wait_connected(self) -> None:
        """Return once every feed is read."""
        wait_until(self._connected, "all feeds are connected", 60)

    def _connected(self) -> bool:
        body = self.system.get("/health").body
        feeds = body["components"].get("exchanges", {"none": {"status": "connecting"}})
        return all(feed["status"] != "connecting" for feed in feeds.values())

    def counts_hold(self) -> bool:
        """Tell whether every tick received is accounted for, as the node sees it."""
        return bool(self.system.get("/health").body["components"]["ticks"]["status"] == "ok")


@contextmanager
def running(config: Config) -> Iterator[Measured]:
    """Run a system on a directory of its own, and stop it as an operator does."""
    with installed(config) as system:
        yield from _run(system)


def _run(system: System) -> Iterator[Measured]:
    system.start_ready()
    measured = Measured(system)
    yield measured
    status = system.terminate(20.0)
    assert status == 0, f"MarketFlow ended with status {status}"


@contextmanager
def running_on(system: System) -> Iterator[Measured]:
    """Run a system that is installed already."""
    yield from _run(system)


def switch(measured: Measured, mode: str) -> float:
    """Switch the mode and return how many seconds that took."""
    began = time.monotonic()
    answer = measured.system.post(f"/mode/{mode}")
    assert answer.status == 200, answer
    return time.monotonic() - began
