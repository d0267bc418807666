"""The system's clocks."""

import time


class SystemClock:
    """Time of day and monotonic time of this machine."""

    def now(self) -> int:
        """Return the time of day, Unix ms."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> int:
        """Return ms of a clock that never steps."""
        return time.monotonic_ns() // 1_000_000
