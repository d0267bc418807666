"""Pieces: lines are handed on in parts that are decoded within a moment, whatever they are."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketflow.domain.feed import MAX_SHORT_LINES, Decoder, pieces
from tests.support.oracle import SYMBOLS


@given(st.integers(0, 3 * MAX_SHORT_LINES), st.sampled_from([b"\n", b"{}\n", b"\r\n"]))
@example(MAX_SHORT_LINES, b"\n")
@example(MAX_SHORT_LINES + 1, b"\n")
def test_pieces_are_the_whole_and_none_is_too_long(count: int, line: bytes) -> None:
    found = list(pieces(line * count, count))
    assert b"".join(piece for _, piece in found) == line * count
    assert all(lines == piece.count(b"\n") <= MAX_SHORT_LINES for lines, piece in found)


def test_what_fits_is_not_cut() -> None:
    lines = b'{"symbol":"BTCUSDT","price":67012.5,"timestamp":1763827200123}\n' * 1_040
    assert list(pieces(lines, 1_040)) == [(1_040, lines)]


@pytest.mark.parametrize("line", [b"", b"x", b" \t\r", b"{", b"}", b"null", b"[{}]", b"\xff{}", b"{}x", b"{}\x00"])
def test_what_cannot_be_an_object_is_malformed(line: bytes) -> None:
    assert Decoder(SYMBOLS).decode(line + b"\n", 1).rejected == {"malformed": 1}
