"""Decoding: each line is accepted or counted once, whatever its neighbours are."""

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketflow.domain.feed import REASONS, Decoder
from tests.support.oracle import SYMBOLS, read_line

GOOD = b'{"symbol":"BTCUSDT","price":67012.5,"timestamp":1763827200123}'
OTHER = b'{"timestamp":1763827200124,"symbol":"ETHUSDT","price":3000}'
DECODER = Decoder(SYMBOLS)


def with_price(price: bytes) -> bytes:
    return b'{"symbol":"BTCUSDT","price":' + price + b',"timestamp":1763827200123}'


def with_time(timestamp: bytes) -> bytes:
    return b'{"symbol":"BTCUSDT","price":1,"timestamp":' + timestamp + b"}"


def with_symbol(symbol: bytes) -> bytes:
    return b'{"symbol":' + symbol + b',"price":1,"timestamp":1763827200123}'


def with_unknown(value: bytes) -> bytes:
    return b'{"more":' + value + b"," + GOOD[1:]


ACCEPTED = [
    GOOD,
    OTHER,
    GOOD + b"\r",
    b"  " + GOOD + b" \t",
    with_price(b"1e2"),
    with_price(b"5e-324"),
    with_price(b"1.7976931348623157e308"),
    with_price(b"1" * 300),
    with_time(b"-5"),
    with_time(b"9" * 30),
    with_symbol(b'"\\u0042TCUSDT"'),
    with_unknown(b'{"a":[1,null,true,"\\n"]}'),
    with_unknown(b"[" * 200 + b"]" * 200),
    with_unknown('"é"'.encode()),
    with_unknown(b"1e999"),
    with_unknown(b"7" * 5000),
]
REJECTED = {
    "malformed": [
        b"",
        b" ",
        b"\r",
        b"garbage",
        b"null",
        b"17",
        b'"BTCUSDT"',
        b"[]",
        b"[" + GOOD + b"]",
        b"{",
        GOOD[:-1],
        GOOD + b"}",
        GOOD + b",",
        GOOD + GOOD,
        GOOD + b" " + OTHER,
        b"\xef\xbb\xbf" + GOOD,
        b"\x00" + GOOD,
        b"\xff\xfe",
        with_unknown(b'"\xff"'),
        with_unknown(b'"\xc3"'),
        with_unknown(b'"\xed\xa0\x80"'),
        with_unknown(b'"\x01"'),
        with_unknown(b'"\\q"'),
        with_unknown(b"NaN"),
        with_unknown(b"[" * 20_000 + b"]" * 20_000),
        b"[" * 60_000,
        with_price(b"01"),
        with_price(b".5"),
        with_price(b"1."),
        with_price(b"+1"),
        with_price(b"0x1"),
        with_price(b"nan"),
        with_time(b"NaN"),
        GOOD.replace(b'"', b"'"),
    ],
    "invalid_field": [
        b"{}",
        b'{"symbol":"BTCUSDT","price":1}',
        b'{"symbol":"BTCUSDT","timestamp":1}',
        b'{"price":1,"timestamp":1}',
        b'{"symbol":"BTCUSDT","price":NaN}',
        GOOD.replace(b"symbol", b"SYMBOL"),
        with_price(b"true"),
        with_price(b"null"),
        with_price(b'"1"'),
        with_price(b"[1]"),
        with_price(b"{}"),
        with_time(b"true"),
        with_time(b"null"),
        with_time(b'"1763827200123"'),
        with_time(b"1763827200123.0"),
        with_time(b"1.763827200123e12"),
        with_time(b"1.5"),
        with_time(b"1e999"),
        with_symbol(b"null"),
        with_symbol(b"1"),
        with_symbol(b'["BTCUSDT"]'),
        b'{"symbol":"NOPE","price":"1","timestamp":1}',
        b'{"symbol":"NOPE","price":true,"timestamp":1}',
        b'{"symbol":"NOPE","price":-1,"timestamp":"x"}',
    ],
    "unknown_symbol": [
        with_symbol(b'"btcusdt"'),
        with_symbol(b'"BTCUSDT "'),
        with_symbol(b'""'),
        with_symbol(b'"BTCUSDT\\u0000"'),
        b'{"symbol":"NOPE","price":-1,"timestamp":1}',
        b'{"symbol":"NOPE","price":NaN,"timestamp":1}',
        b'{"symbol":"NOPE","price":1e999,"timestamp":1}',
    ],
    "bad_price": [
        with_price(price)
        for price in (
            b"0",
            b"0.0",
            b"-0.0",
            b"-1",
            b"-5e-324",
            b"1e-400",
            b"NaN",
            b"Infinity",
            b"-Infinity",
            b"1e999",
            b"-1e999",
            b"1" * 400,
            b"-" + b"1" * 400,
            b"1" * 5000,
            b"-" + b"1" * 5000,
        )
    ],
}
BAD = [(line, reason) for reason, lines in REJECTED.items() for line in lines]
BROKEN = [GOOD[:20] + b"\n" + GOOD[20:], GOOD[:9] + b"\n\n" + GOOD[9:]]  # one object over several lines


def expected(lines: bytes) -> tuple[dict[str, list[tuple[float, int]]], dict[str, int]]:
    ticks: dict[str, list[tuple[float, int]]] = {}
    rejected: Counter[str] = Counter()
    for line in lines.split(b"\n")[:-1]:
        read = read_line(line)
        if isinstance(read, str):
            rejected[read] += 1
        else:
            ticks.setdefault(read[0], []).append(read[1:])
    return ticks, dict(rejected)


def decoded(lines: bytes) -> tuple[dict[str, list[tuple[float, int]]], dict[str, int]]:
    result = DECODER.decode(lines, lines.count(b"\n"))
    ticks = {symbol: list(zip(*columns, strict=True)) for symbol, columns in result.ticks.items()}
    return ticks, {str(reason): count for reason, count in result.rejected.items()}


@pytest.mark.parametrize("line", ACCEPTED, ids=lambda line: repr(line[:70]))
def test_a_good_line_is_accepted(line: bytes) -> None:
    ticks, rejected = decoded(line + b"\n")
    assert (ticks, rejected) == expected(line + b"\n")
    assert (sum(map(len, ticks.values())), rejected) == (1, {})


@pytest.mark.parametrize(("line", "reason"), BAD, ids=lambda part: repr(part[:70]))
def test_a_bad_line_is_counted_and_costs_no_neighbour(line: bytes, reason: str) -> None:
    ticks, rejected = decoded(GOOD + b"\n" + line + b"\n" + OTHER + b"\n")
    assert rejected == {reason: 1}
    assert ticks == {"BTCUSDT": [(67012.5, 1763827200123)], "ETHUSDT": [(3000.0, 1763827200124)]}


@given(st.lists(st.sampled_from([*ACCEPTED, *(line for line, _ in BAD), *BROKEN]), max_size=12))
@example([GOOD + GOOD, b""])
@example([BROKEN[0], GOOD + GOOD])
@example([GOOD + b"\r", GOOD + b"\r" + OTHER, b"\r"])
def test_any_mixture_is_what_its_lines_are(mixture: list[bytes]) -> None:
    lines = b"".join(line + b"\n" for line in mixture)
    assert decoded(lines) == expected(lines)


@given(st.lists(st.sampled_from(ACCEPTED), max_size=10), st.data())
def test_any_damage_is_counted_once_a_line(good: list[bytes], data: st.DataObject) -> None:
    lines = bytearray(b"".join(line + b"\n" for line in good) + b"?\n")
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(lines) - 2), st.integers(0, 255)), max_size=4)):
        lines[at] = byte
    ticks, rejected = decoded(bytes(lines))
    assert sum(map(len, ticks.values())) + sum(rejected.values()) == lines.count(b"\n")
    assert set(rejected) <= set(REASONS)


@given(st.lists(st.sampled_from(ACCEPTED), max_size=20), st.sampled_from([b"\n", b"\r\n"]))
def test_the_fast_path_reads_what_reading_line_by_line_does(good: list[bytes], end: bytes) -> None:
    lines = b"".join(line + end for line in good)
    fast, slow = DECODER.decode(lines, len(good)), DECODER._line_by_line(lines)
    assert (fast.ticks, fast.rejected) == (slow.ticks, slow.rejected)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(noise: bytes) -> None:
    lines = noise + b"\n"
    assert decoded(lines) == expected(lines)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_good_lines_take_the_fast_path(end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Decoder, "_line_by_line")
    assert len(DECODER.decode((GOOD + end + OTHER + end) * 50, 100).ticks["BTCUSDT"][0]) == 50
