"""Faults of the lines themselves: bad, unknown, doubled, swapped and late ones, decided by a seeded source."""

import random
import re

from testgen.render import Stream
from testgen.settings import Faults

GARBAGE: dict[str, tuple[bytes, ...]] = {
    "malformed": (b"garbage", b'{"symbol":"BTCUSDT","price":1.5,', b"\xff\xfe\x00", b"[1,2,3]", b"null", b"{}}"),
    "invalid_field": (
        b'{"symbol":"BTCUSDT","timestamp":%d}',
        b'{"symbol":"BTCUSDT","price":"1.5","timestamp":%d}',
        b'{"symbol":17,"price":1.5,"timestamp":%d}',
        b'{"symbol":"BTCUSDT","price":1.5,"timestamp":"%d"}',
        b'{"symbol":"BTCUSDT","price":1.5}',
    ),
    "bad_price": (
        b'{"symbol":"BTCUSDT","price":0,"timestamp":%d}',
        b'{"symbol":"BTCUSDT","price":-1.5,"timestamp":%d}',
    ),
    "bad_timestamp": (
        b'{"symbol":"BTCUSDT","price":1.5,"timestamp":1}',
        b'{"symbol":"BTCUSDT","price":1.5,"timestamp":9%d}',
    ),
}
"""Bad lines by the reason for which a receiver rejects them; `%d` stands for the time of sending."""

UNKNOWN = b'{"symbol":"NOSUCHPAIR","price":1.5,"timestamp":%d}'
LONG = b'{"symbol":"BTCUSDT","price":1.5,"timestamp":%d,"pad":"' + b"x" * 70_000 + b'"}'

_ALL_GARBAGE = tuple(line for lines in GARBAGE.values() for line in lines)
_LINES = re.compile(rb"[^\n]*\n|[^\n]+")
_TIMESTAMP = re.compile(rb'(?<="timestamp":)\d+')


class FaultyStream:
    """Another stream with faults in it. Every tick of the other is sent once, save those meant to be doubled."""

    def __init__(self, stream: Stream, faults: Faults, source: random.Random) -> None:
        """`source` decides, tick by tick, so that one seed gives one sequence of lines."""
        self._stream = stream
        self._faults = faults
        self._source = source
        self._held = b""

    @property
    def position(self) -> int:
        """Ticks rendered so far, without the extra lines."""
        return self._stream.position

    def render(self, ticks: int, now: int) -> bytes:
        """See Stream; a tick held back may make a block empty, and then the next ones are tried."""
        while block := self._stream.render(ticks, now):
            out = b"".join([self._with_faults(line, now) for line in _LINES.findall(block)])
            if out:
                return out
        held, self._held = self._held, b""
        return held

    def _with_faults(self, line: bytes, now: int) -> bytes:
        faults, happens = self._faults, self._happens
        if happens(faults.late):
            back = self._source.randint(1, max(1, int(faults.late_by * 1000)))
            line = _TIMESTAMP.sub(lambda match: b"%d" % (int(match[0]) - back), line)
        if happens(faults.duplicates):
            line += line
        if happens(faults.unknown):
            line += UNKNOWN % now + b"\n"
        if happens(faults.garbage):
            line += self._source.choice(_ALL_GARBAGE).replace(b"%d", b"%d" % now) + b"\n"
        if happens(faults.long_lines):
            line += LONG % now + b"\n"
        if not self._held and happens(faults.reorder):
            self._held = line
            return b""
        held, self._held = self._held, b""
        return line + held

    def _happens(self, share: float) -> bool:
        # A share of 0 draws nothing: faults that are off must not change the sequence of those that are on.
        return share > 0 and self._source.random() < share
