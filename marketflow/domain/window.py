"""Windows: the stored stretch of time of a pair on an exchange, and when one is due to be stored."""

from typing import NamedTuple

from marketflow.domain.bar import Bar
from marketflow.domain.mode import Mode


class WindowKey(NamedTuple):
    """Which window: its pair, its exchange and its start (Unix ms, a multiple of the interval)."""

    exchange: str
    symbol: str
    start: int


class StoredWindow(NamedTuple):
    """A window as it is stored: its whole state, never a difference."""

    mode: Mode
    key: WindowKey
    bar: Bar


class EventClock:
    """The clock of an exchange as its ticks tell it: the newest timestamp seen, moved on by the time since (all in ms).

    The clock that moves it on is monotonic: a silent exchange's windows close too, and a step of the machine's clock
    closes none.
    """

    __slots__ = ("_ahead",)

    def __init__(self) -> None:
        self._ahead: int | None = None

    def saw(self, timestamp: int, monotonic: int) -> None:
        """Note that a tick of `timestamp` (Unix ms) was received at `monotonic` (ms of any monotonic clock)."""
        ahead = timestamp - monotonic
        if self._ahead is None or ahead > self._ahead:
            self._ahead = ahead

    def time(self, monotonic: int, default: int) -> int:
        """Return the exchange's time (Unix ms), `default` when it has not sent a tick yet."""
        return default if self._ahead is None else monotonic + self._ahead
