"""Framing: however the bytes of a connection are cut, the same whole lines come out, and memory stays bounded."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketflow.domain import feed
from marketflow.domain.feed import MAX_LINE, Framer

STREAM = st.lists(st.sampled_from([b"\n", b"a", b"bcd", b"\r\n", b"{}", b"0123456"]), max_size=40).map(b"".join)


def expected(stream: bytes, longest: int) -> tuple[bytes, int]:
    *lines, rest = stream.split(b"\n")
    kept = b"".join(line + b"\n" for line in lines if len(line) <= longest)
    return kept, sum(len(line) > longest for line in [*lines, rest])


@given(STREAM, st.sets(st.integers(1, 120)))
@example(b"12345678\n123456789\n\n", {9, 18})
@example(b"123456789", {8})
def test_any_chunks_give_the_same_lines(stream: bytes, cuts: set[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "MAX_LINE", 8)
        framer = Framer()
        ends = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
        lines = b"".join(framer.feed(stream[start:end]) for start, end in itertools.pairwise(ends))
        assert (lines, framer.too_long) == expected(stream, 8)


@given(STREAM, st.integers(1, 50))
def test_what_comes_out_at_any_time_is_whole_lines(stream: bytes, size: int) -> None:
    framer = Framer()
    for start in range(0, len(stream), size):
        lines = framer.feed(stream[start : start + size])
        assert not lines or lines.endswith(b"\n")


def test_the_longest_line_passes_and_one_byte_more_does_not() -> None:
    framer = Framer()
    longest = b"x" * MAX_LINE + b"\n"
    assert framer.feed(longest) == longest
    assert framer.feed(b"x" + longest) == b""
    assert framer.feed(b"x" + longest[:-1]) == b""
    assert framer.feed(b"\nnext\n") == b"next\n"
    assert framer.too_long == 2


def test_a_line_without_end_is_counted_once_and_not_kept() -> None:
    framer = Framer()
    for _ in range(100):
        assert framer.feed(b"x" * MAX_LINE) == b""
        assert len(framer._rest) <= MAX_LINE
    assert framer.too_long == 1
    assert framer.feed(b"the end\ngood\nhalf") == b"good\n"
    assert framer.feed(b" a line\n") == b"half a line\n"
    assert framer.too_long == 1


def test_overlong_lines_cost_no_neighbour() -> None:
    long = b"x" * (MAX_LINE + 1)
    framer = Framer()
    assert framer.feed(b"a\n" + long + b"\nb\n" + long + b"\n" + long + b"\nc\nd") == b"a\nb\nc\n"
    assert framer.too_long == 3
