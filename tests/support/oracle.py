"""The oracle: what MarketFlow must make of the bytes that exchanges sent, in plain Python and without its code."""

import json
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

SYMBOLS = ("BTCUSDT", "DOGEUSDT", "TONUSDT", "SOLUSDT", "ETHUSDT")
LONGEST_LINE = 64 * 1024


class Tick(NamedTuple):
    """An accepted tick; `time` in Unix ms."""

    exchange: str
    symbol: str
    price: float
    time: int


class Row(NamedTuple):
    """What a stored window, or any other set of ticks in order of receipt, amounts to."""

    open: float
    close: float
    low: float
    high: float
    average: float
    ticks: int


class NotFinite:
    """Stands for NaN, Infinity and -Infinity, which Python's reader lets pass and JSON does not have."""


def row_of(ticks: list[Tick]) -> Row:
    """Return the row of at least one tick, given in order of receipt: ties in time go by that order."""
    prices = [tick.price for tick in ticks]
    first = min(ticks, key=lambda tick: tick.time)  # min and max keep the first of equals
    last = max(reversed(ticks), key=lambda tick: tick.time)
    return Row(first.price, last.price, min(prices), max(prices), math.fsum(prices) / len(prices), len(prices))


def highest(ticks: list[Tick]) -> Tick:
    """Return the tick with the highest price, of several the earliest."""
    return max(ticks, key=lambda tick: (tick.price, -tick.time))


def lowest(ticks: list[Tick]) -> Tick:
    """Return the tick with the lowest price, of several the earliest."""
    return min(ticks, key=lambda tick: (tick.price, tick.time))


def read_line(line: bytes, symbols: Iterable[str] = SYMBOLS) -> tuple[str, float, int] | str:
    """Return symbol, price and timestamp of a line without its newline, or the reason why it is rejected.

    Whether the timestamp is near enough to now is not looked at.
    """
    if len(line) > LONGEST_LINE:
        return "line_too_long"
    constants: list[str] = []

    def constant(name: str) -> NotFinite:
        constants.append(name)
        return NotFinite()

    try:
        fields = json.loads(line.decode("utf-8", "strict"), parse_constant=constant, parse_int=_integer)
    except (ValueError, RecursionError):
        return "malformed"
    return _read_fields(fields, bool(constants), symbols)


def _read_fields(fields: Any, has_constants: bool, symbols: Iterable[str]) -> tuple[str, float, int] | str:
    if not isinstance(fields, dict):
        return "malformed"
    symbol, timestamp = fields.get("symbol"), fields.get("timestamp")
    price: Any = fields.get("price")
    if has_constants and not isinstance(price, NotFinite):
        return "malformed"
    if not isinstance(symbol, str) or type(timestamp) is not int or type(price) not in {int, float, NotFinite}:
        return "invalid_field"
    if symbol not in symbols:
        return "unknown_symbol"
    if isinstance(price, NotFinite) or not 0 < price < math.inf:
        return "bad_price"
    return symbol, float(price), timestamp


def _integer(digits: str) -> int | float:
    """Read an integer as Python's own reader does, but as infinite where no float could hold it."""
    return int(digits) if math.isfinite(float(digits)) else float(digits)


class Oracle:
    """Remembers everything that each exchange sent and answers what MarketFlow must answer.

    Bytes are only noted when they are sent, and read when an answer is wanted: a test at full speed is not held up.
    """

    def __init__(self, symbols: Iterable[str] = SYMBOLS, max_skew: int = 60_000) -> None:
        self._symbols = frozenset(symbols)
        self._max_skew = max_skew
        self._noted: deque[tuple[str, bytes | None, int]] = deque()
        self._unfinished: dict[str, bytes] = {}
        self._received: Counter[str] = Counter()
        self._rejected: Counter[tuple[str, str]] = Counter()
        self._ticks: list[Tick] = []

    def sent(self, exchange: str, data: bytes, now: int) -> None:
        """Note bytes that an exchange sent on a connection at `now` (Unix ms); they may end in the middle of a line."""
        self._noted.append((exchange, data, now))

    def cut(self, exchange: str) -> None:
        """Note that the connection ended: what was left of a line is lost, and was never a line."""
        self._noted.append((exchange, None, 0))

    @property
    def received(self) -> Counter[str]:
        """Lines by exchange."""
        self._read_noted()
        return self._received

    @property
    def rejected(self) -> Counter[tuple[str, str]]:
        """Rejected lines by exchange and reason."""
        self._read_noted()
        return self._rejected

    @property
    def ticks(self) -> list[Tick]:
        """Accepted ticks; those of one exchange in order of receipt."""
        self._read_noted()
        return self._ticks

    def accepted(self, exchange: str) -> int:
        """Return the number of accepted ticks of an exchange."""
        return self.received[exchange] - sum(n for (name, _), n in self.rejected.items() if name == exchange)

    def of(self, symbol: str, exchange: str | None = None, start: int = 0, end: int = 2**62) -> list[Tick]:
        """Return the ticks of a pair with `start <= time < end` (Unix ms), of one exchange or of all."""
        return self.where(
            lambda tick: tick.symbol == symbol and exchange in {None, tick.exchange} and start <= tick.time < end
        )

    def where(self, wanted: Callable[[Tick], bool]) -> list[Tick]:
        """Return the ticks that are wanted, in order of receipt."""
        return [tick for tick in self.ticks if wanted(tick)]

    def latest(self, symbol: str, exchange: str | None = None) -> set[Tick]:
        """Return the tick with the greatest time: the last received of an exchange; more than one exchange may tie."""
        last: dict[str, Tick] = {}
        for tick in self.of(symbol, exchange):
            if tick.exchange not in last or tick.time >= last[tick.exchange].time:
                last[tick.exchange] = tick
        newest = max((tick.time for tick in last.values()), default=0)
        return {tick for tick in last.values() if tick.time == newest}

    def windows(self, interval: int) -> dict[tuple[str, str, int], Row]:
        """Return every stored row by exchange, symbol and start of its window (Unix ms)."""
        groups: dict[tuple[str, str, int], list[Tick]] = {}
        for tick in self.ticks:
            groups.setdefault((tick.exchange, tick.symbol, tick.time - tick.time % interval), []).append(tick)
        return {key: row_of(ticks) for key, ticks in groups.items()}

    def _read_noted(self) -> None:
        while self._noted:
            exchange, data, now = self._noted.popleft()
            if data is None:
                self._unfinished.pop(exchange, None)
                continue
            *lines, rest = (self._unfinished.pop(exchange, b"") + data).split(b"\n")
            self._unfinished[exchange] = rest
            for line in lines:
                self._read_line(exchange, line, now)

    def _read_line(self, exchange: str, line: bytes, now: int) -> None:
        self._received[exchange] += 1
        read = read_line(line, self._symbols)
        if isinstance(read, str):
            self._rejected[exchange, read] += 1
        elif abs(read[2] - now) > self._max_skew:
            self._rejected[exchange, "bad_timestamp"] += 1
        else:
            self._ticks.append(Tick(exchange, *read))
