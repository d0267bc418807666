"""From prices to bytes: pre-rendered lines that only lack their timestamp, and the streams that are sent."""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

_LAZY_LINES = 1024
_LONGEST_READ = 1 << 20
_TIMESTAMP = re.compile(rb'("timestamp":)-?\d+')


class Stream(Protocol):
    """Lines for one connection, in order."""

    @property
    def position(self) -> int:
        """Ticks rendered so far."""

    def render(self, ticks: int, now: int) -> bytes:
        """At least one and at most `ticks` further ticks as whole lines, sent at `now` (Unix ms); b"" at the end."""


class Tape:
    """Lines without their timestamps, rendered once and sent many times, by every connection of an exchange.

    A tape holds a fixed number of lines. Read past its end it runs backwards, then forwards again, so that
    prices never jump and memory stays bounded however long a stream runs.
    """

    def __init__(self, ticks: Iterator[tuple[str, float]], length: int) -> None:
        """`length` is in lines; `ticks` must give as many symbols and prices."""
        self._ticks = ticks
        self._length = length
        self._lines: list[bytes] = []

    def fill(self, lines: int) -> None:
        """Render until there are at least `lines` lines, or the tape is full."""
        missing = min(lines, self._length) - len(self._lines)
        if missing > 0:
            self._lines += [
                b'{"symbol":"%b","price":%b,"timestamp":' % (symbol.encode(), repr(price).encode())
                for symbol, price in islice(self._ticks, missing)
            ]
            if len(self._lines) == self._length:
                self._lines += self._lines[::-1]

    def read(self, position: int, lines: int) -> list[bytes]:
        """At least one and at most `lines` lines from `position` on, in a list of the caller's own."""
        start = position % (2 * self._length)
        if start >= len(self._lines):
            self.fill(start + max(lines, _LAZY_LINES))
        return self._lines[start : start + lines]


class WalkStream:
    """A tape with timestamps: `now`, or those of `clock` by tick number."""

    def __init__(self, tape: Tape, count: int, clock: Callable[[int], int] | None) -> None:
        """`count` ends the stream after as many ticks; 0 never does."""
        self.position = 0
        self._tape = tape
        self._count = count
        self._clock = clock

    def render(self, ticks: int, now: int) -> bytes:
        """See Stream."""
        if self._count:
            ticks = min(ticks, self._count - self.position)
        if ticks <= 0:
            return b""
        lines = self._tape.read(self.position, ticks)
        start = self.position
        self.position += len(lines)
        if self._clock is not None:
            return b"".join([b"%b%d}\n" % (line, self._clock(start + n)) for n, line in enumerate(lines)])
        lines.append(b"")
        return (b"%d}\n" % now).join(lines)


class ReplayStream:
    """The lines of a recorded file, as they are or with `now` as their timestamps."""

    def __init__(self, path: Path, count: int, *, retime: bool) -> None:
        """`count` ends the stream after as many lines; 0 at the end of the file."""
        self.position = 0
        self._lines = islice(_lines(path), count or None)
        self._retime = retime

    def render(self, ticks: int, now: int) -> bytes:
        """See Stream. Raises OSError when the file cannot be read."""
        lines = list(islice(self._lines, ticks))
        self.position += len(lines)
        block = b"".join(lines)
        return _TIMESTAMP.sub(rb"\g<1>%d" % now, block) if self._retime else block


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_READ):
            yield line
