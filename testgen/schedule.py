"""When ticks are due: rates and bursts as pure functions of the time since a connection opened."""

import math

from testgen.settings import Bursts


class Schedule:
    """Ticks due by a time, and the time at which a tick is due; each the inverse of the other.

    A burst multiplies the rate at the end of every `bursts.every` seconds, for `bursts.length` seconds.
    """

    def __init__(self, rate: float, bursts: Bursts) -> None:
        """`rate` is in ticks per second, above 0."""
        self._rate = rate
        self._fast = rate * bursts.factor
        self._quiet = bursts.every - bursts.length
        self._every = bursts.every
        self._quiet_ticks = rate * self._quiet
        self._cycle_ticks = self._quiet_ticks + self._fast * bursts.length

    def due(self, elapsed: float) -> int:
        """How many ticks are due `elapsed` seconds after the start; the first one is due at 0."""
        return math.floor(self._through(elapsed) + 1e-6) + 1

    def at(self, tick: int) -> float:
        """Seconds after the start at which tick number `tick` (from 0) is due."""
        if not self._every:
            return tick / self._rate
        cycles, rest = divmod(tick, self._cycle_ticks)
        start = cycles * self._every
        if rest <= self._quiet_ticks:
            return start + rest / self._rate
        return start + self._quiet + (rest - self._quiet_ticks) / self._fast

    def _through(self, elapsed: float) -> float:
        if not self._every:
            return elapsed * self._rate
        cycles, rest = divmod(elapsed, self._every)
        quiet = min(rest, self._quiet)
        return cycles * self._cycle_ticks + quiet * self._rate + (rest - quiet) * self._fast
