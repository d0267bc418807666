"""The machine under a run: how fast it is now, who else uses it, and what a process of ours costs."""

import resource
import time
from typing import NamedTuple

import msgspec
import psutil

_LINES = b"".join(b'{"symbol":"BTCUSDT","price":%d.25,"timestamp":1763827200123}\n' % n for n in range(2_000))
_LOOPS = 60
_DISTURBED = 0.15  # cores


class _Tick(msgspec.Struct, gc=False):
    symbol: str
    price: float
    timestamp: int


class Noise(NamedTuple):
    """What a row was measured in: CPU that was not ours, in cores, and the speed of a fixed piece of work."""

    row: str
    seconds: float
    speed: float
    """Million lines a second that one thread decodes, the mean of before and after."""
    elsewhere: float
    stolen: float

    @property
    def disturbed(self) -> bool:
        """Whether others took so much that figures suffer."""
        return self.elsewhere + self.stolen > _DISTURBED


class Watch:
    """Looks at the machine from the beginning of a row to its end, when all processes of ours have ended."""

    def __init__(self, row: str) -> None:
        self._row = row
        self._speed = calibrate()
        self._start = time.monotonic()
        self._busy, self._stolen = _machine()
        self._own = _own()

    def stop(self) -> Noise:
        """Return what was seen."""
        seconds = time.monotonic() - self._start
        busy, stolen = _machine()
        elsewhere = busy - self._busy - (_own() - self._own)
        speed = (self._speed + calibrate()) / 2
        return Noise(self._row, seconds, speed, max(0.0, elsewhere / seconds), (stolen - self._stolen) / seconds)


def calibrate() -> float:
    """Return how many million lines a second this thread decodes now, by the clock."""
    decoder = msgspec.json.Decoder(_Tick)
    began = time.perf_counter()
    for _ in range(_LOOPS):
        decoder.decode_lines(_LINES)
    return _LOOPS * 2_000 / (time.perf_counter() - began) / 1e6


def cpu_of(process: psutil.Process) -> float:
    """Return the CPU seconds that a process has used, without its children."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _machine() -> tuple[float, float]:
    """Return the seconds that all cores were busy, and that the hypervisor kept them."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq, times.steal


def _own() -> float:
    """Return the CPU seconds of this process and of all its descendants that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
