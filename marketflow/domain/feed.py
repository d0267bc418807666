"""The wire format of an exchange feed: framing chunks into batches of lines, and decoding a batch into columns."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeGuard

import msgspec

MAX_LINE: Final = 64 * 1024
"""Longest line that an exchange may send, in bytes without its newline."""

SHORTEST_TICK: Final = 40
"""Fewer bytes than a line with a tick of these days can have."""
MAX_SHORT_LINES: Final = 512
"""Most lines of a batch, where lines are shorter than that on average. Bad lines take ten times as long as good ones
and may be as short as a byte: what is decoded at a time must not take so long that others wait for it."""

Reason: TypeAlias = Literal[
    "malformed", "invalid_field", "unknown_symbol", "bad_price", "bad_timestamp", "line_too_long"
]
"""Why a line is rejected."""

REASONS: Final[tuple[Reason, ...]] = (
    "malformed",
    "invalid_field",
    "unknown_symbol",
    "bad_price",
    "bad_timestamp",
    "line_too_long",
)

Columns: TypeAlias = dict[str, tuple[list[float], list[int]]]
"""Ticks by symbol, as a column of prices and one of times (Unix ms), in order of receipt."""


class Framer:
    """Cuts the chunks of one connection into whole lines; keeps at most MAX_LINE bytes of an unfinished one."""

    __slots__ = ("_overlong", "_rest", "too_long")

    def __init__(self) -> None:
        self._rest = b""
        self._overlong = False
        self.too_long = 0
        """Lines longer than MAX_LINE bytes that were left out so far."""

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk as it was received; return the whole lines that it completes, b"" when there is none."""
        if self._overlong:
            end = chunk.find(b"\n")
            if end < 0:
                return b""
            self._overlong = False
            chunk = chunk[end + 1 :]
        data = self._rest + chunk if self._rest else chunk
        cut = data.rfind(b"\n") + 1
        rest = data[cut:]
        if len(rest) > MAX_LINE:
            self._overlong = True
            self.too_long += 1
            rest = b""
        self._rest = rest
        lines = data[:cut]
        return lines if cut <= MAX_LINE else self._without_overlong(lines)

    def _without_overlong(self, lines: bytes) -> bytes:
        """Leave out the lines of more than MAX_LINE bytes: where no newline ends one in time, there one is."""
        kept: list[bytes] = []
        start = at = 0
        while len(lines) - at > MAX_LINE:
            end = lines.rfind(b"\n", at, at + MAX_LINE + 1)
            if end < 0:
                kept.append(lines[start:at])
                start = lines.find(b"\n", at) + 1
                self.too_long += 1
                at = start
            else:
                at = end + 1
        kept.append(lines[start:])
        return b"".join(kept)


def pieces(lines: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    """Yield `count` whole lines, each piece with its number of them: all at once, or where they are too short to be
    ticks, in pieces of at most MAX_SHORT_LINES."""
    if count <= MAX_SHORT_LINES or len(lines) >= count * SHORTEST_TICK:
        yield count, lines
        return
    each = lines.split(b"\n")[:-1]
    for start in range(0, count, MAX_SHORT_LINES):
        piece = each[start : start + MAX_SHORT_LINES]
        yield len(piece), b"\n".join(piece) + b"\n"


class Decoded(msgspec.Struct):
    """What a batch of lines holds: its good ticks in columns, and its bad lines counted by reason."""

    ticks: Columns
    rejected: dict[Reason, int]


class _Tick(msgspec.Struct, gc=False):
    symbol: str
    price: float
    timestamp: int


class _GoodTick(msgspec.Struct, gc=False):
    """A tick that needs no second look at its price: msgspec checks it while it decodes, in C."""

    symbol: str
    price: Annotated[float, msgspec.Meta(gt=0)]
    timestamp: int


_NOT_A_TICK = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Decoder:
    """Decodes batches of lines for a set of symbols. Timestamps are left to the fold, which looks at them anyway."""

    def __init__(self, symbols: Iterable[str]) -> None:
        self._symbols = frozenset(symbols)
        self._good = msgspec.json.Decoder(_GoodTick)
        self._any = msgspec.json.Decoder(_Tick)

    def decode(self, lines: bytes, count: int) -> Decoded:
        """Return what `count` whole lines hold. Never raises for what is in them; each line is accepted or counted."""
        try:
            if not lines.isascii():
                lines.decode()  # msgspec does not look into the strings that it skips
            ticks = self._good.decode_lines(lines)
        except _NOT_A_TICK:
            return self._line_by_line(lines)
        if len(ticks) != count or not _one_a_line(lines, count):
            return self._line_by_line(lines)
        by_symbol: defaultdict[str, list[_GoodTick]] = defaultdict(list)
        for tick in ticks:
            by_symbol[tick.symbol].append(tick)
        columns = {
            symbol: ([tick.price for tick in ticks], [tick.timestamp for tick in ticks])
            for symbol, ticks in by_symbol.items()
        }
        unknown = columns.keys() - self._symbols
        if not unknown:
            return Decoded(columns, {})
        return Decoded(columns, {"unknown_symbol": sum(len(columns.pop(symbol)[0]) for symbol in unknown)})

    def _line_by_line(self, lines: bytes) -> Decoded:
        columns: Columns = {}
        rejected: Counter[Reason] = Counter()
        for line in lines.split(b"\n")[:-1]:
            if not _may_be_object(line):
                rejected["malformed"] += 1
                continue
            try:
                line.decode()
                tick = self._any.decode(line)
            except _NOT_A_TICK:
                rejected[self._fault(line)] += 1
                continue
            if tick.symbol not in self._symbols:
                rejected["unknown_symbol"] += 1
            elif not tick.price > 0:
                rejected["bad_price"] += 1
            else:
                prices, times = columns.setdefault(tick.symbol, ([], []))
                prices.append(tick.price)
                times.append(tick.timestamp)
        return Decoded(columns, rejected)

    def _fault(self, line: bytes) -> Reason:
        """Say why a line is no tick. The standard decoder is asked because it also reads NaN, Infinity and 1e999."""
        try:
            fields: Any = _standard.decode(line.decode())
        except (ValueError, RecursionError):
            return "malformed"
        if not isinstance(fields, dict):
            return "malformed"
        symbol, price, timestamp = (fields.get(name) for name in ("symbol", "price", "timestamp"))
        not_finite = isinstance(price, float) and not math.isfinite(price)
        if not not_finite and not _is_json(line):
            return "malformed"
        if not isinstance(symbol, str) or not _is_number(price) or type(timestamp) is not int:
            return "invalid_field"
        if symbol not in self._symbols:
            return "unknown_symbol"
        return "bad_price" if not_finite else "invalid_field"


_ALIKE: Final = len(b'{"symbol":"')


def _one_a_line(lines: bytes, count: int) -> bool:
    """Tell whether as many JSON objects as lines stand one on each: not two on one, nor one over two, nor a blank line.

    Nowhere inside an object can a brace close, the line end and a brace open, so each such place is between two.
    """
    # A longer text is found much faster, and the lines of an exchange nearly always begin alike.
    if lines.startswith(b"{") and lines.count(b"}\n" + lines[:_ALIKE]) == count - 1:
        return True
    between = lines.count(b"}\n{")
    return between == count - 1 or between + lines.count(b"}\r\n{") == count - 1


def _may_be_object(line: bytes) -> bool:
    """Tell by its ends: a flood of lines that are nothing at all must cost no more than good ones."""
    text = line.strip(b" \t\r")
    return text.startswith(b"{") and text.endswith(b"}")


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except _NOT_A_TICK:
        return False
    return True


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bounded_int(digits: str) -> int | float:
    """Read an integer; one that no float can hold is infinite."""
    return int(digits) if len(digits) <= 300 else float(digits)


_standard: Final = json.JSONDecoder(parse_int=_bounded_int)
