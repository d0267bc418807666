"""What must hold for any bytes of an exchange: nothing raises, every line is counted once, memory is bounded."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

from marketflow.domain.bar import merge
from marketflow.domain.feed import MAX_LINE, REASONS, Decoder, Framer, pieces
from marketflow.domain.folding import fold_columns
from marketflow.domain.series import pack_bar, unpack
from tests.support.oracle import SYMBOLS, read_line

NOW: Final = 1_763_827_200_000
MAX_SKEW: Final = 60_000

DECODER: Final = Decoder(SYMBOLS)

PIECES: Final = (
    b'{"symbol":"BTCUSDT","price":67012.5,"timestamp":1763827200123}\n',
    b'{"timestamp":1763827200124,"symbol":"ETHUSDT","price":3000}\r\n',
    b'{"symbol":"BTCUSDT","price":1e308,"timestamp":1763827200123}\n',
    b'{"symbol":"BTCUSDT","price":1e999,"timestamp":1763827200123}\n',
    b'{"symbol":"BTCUSDT","price":NaN,"timestamp":1763827200123}\n',
    b'{"symbol":"BTCUSDT","price":-1,"timestamp":1763827200123}\n',
    b'{"symbol":"BTCUSDT","price":"1","timestamp":"now"}\n',
    b'{"symbol":"BTCUSDT","price":1,"timestamp":99999999999999999999999999}\n',
    b'{"symbol":"BTCUSDT","price":1,"timestamp":-5}\n',
    b'{"symbol":"NOPE","price":1,"timestamp":1763827200123}\n',
    b'{"symbol":["BTCUSDT"],"price":{},"timestamp":null}\n',
    b'{"more":{"a":[1,null,true,"\\n"]},"symbol":"BTCUSDT","price":1,"timestamp":1763827200123}\n',
    b'{"symbol":"\\u0042TCUSDT","price":1,"timestamp":1763827200123}\n',
    b'{"symbol":"\xff","price":1,"timestamp":1}\n',
    b"[" * 500 + b"\n",
    b'{"a":' * 500 + b"\n",
    b"{}\n{}{}\n",
    b"\n\r\n \n",
    b"null\n",
    b"}\n{",
)


def check_connection(stream: bytes, cuts: Iterable[int] = ()) -> None:
    """Take a stream in chunks through framing, decoding and folding. Raises AssertionError, or what raised."""
    framer = Framer()
    ends = [0, *sorted(cuts), len(stream)]
    received = b""
    for start, end in itertools.pairwise(ends):
        lines = framer.feed(stream[start:end])
        assert not lines or lines.endswith(b"\n")
        assert len(framer._rest) <= MAX_LINE
        received += lines
    assert received.count(b"\n") + sum(len(line) > MAX_LINE for line in stream.split(b"\n")) >= stream.count(b"\n")
    for count, piece in pieces(received, received.count(b"\n")):
        _check_batch(piece, count)


def _check_batch(lines: bytes, count: int) -> None:
    decoded = DECODER.decode(lines, count)
    assert set(decoded.rejected) <= set(REASONS)
    clear = b"".join(line + b"\n" for line in lines.split(b"\n")[:-1] if not _is_unclear(line))
    alone = DECODER.decode(clear, clear.count(b"\n"))
    ticks = {symbol: list(zip(*columns, strict=True)) for symbol, columns in alone.ticks.items()}
    assert (ticks, alone.rejected) == _expected(clear)
    folded = fold_columns(decoded.ticks, 1, NOW, MAX_SKEW)
    assert folded.accepted + folded.bad_timestamps + sum(decoded.rejected.values()) == count
    assert sum(bar.count for slices in folded.bars.values() for bar in slices.values()) == folded.accepted
    for slices in folded.bars.values():
        for start, bar in slices.items():
            assert 0 < bar.low <= bar.high < math.inf
            assert abs(start - NOW) <= MAX_SKEW + 100
            assert merge(bar, bar).count == 2 * bar.count
            assert unpack(pack_bar(bar, None), start).count == bar.count


def _is_unclear(line: bytes) -> bool:
    """Tell whether readers may differ: JSON leaves open which counts of two of a name, and NaN is bad in two ways."""
    twice = any(line.count(name) > 1 for name in (b'"symbol"', b'"price"', b'"timestamp"'))
    return twice or b"NaN" in line or b"Infinity" in line


def _expected(lines: bytes) -> tuple[dict[str, list[tuple[float, int]]], Counter[str]]:
    ticks: dict[str, list[tuple[float, int]]] = {}
    rejected: Counter[str] = Counter()
    for line in lines.split(b"\n")[:-1]:
        match read_line(line):
            case str(reason):
                rejected[reason] += 1
            case (symbol, price, time):
                ticks.setdefault(symbol, []).append((price, time))
    return ticks, rejected
