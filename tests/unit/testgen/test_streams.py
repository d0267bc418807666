"""Tapes and streams: the bytes that are sent, however they are asked for."""

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testgen.render import ReplayStream, Stream, Tape, WalkStream

LENGTH = 300


def numbered() -> Iterator[tuple[str, float]]:
    return (("BTCUSDT", float(number)) for number in count(1))


def drain(stream: Stream, sizes: list[int], now: int = 5) -> bytes:
    blocks = [stream.render(size, now) for size in sizes]
    while block := stream.render(64, now):
        blocks.append(block)
    return b"".join(blocks)


def prices(block: bytes) -> list[float]:
    return [float(price) for price in re.findall(rb'"price":([\d.]+),', block)]


def test_a_line_is_exactly_as_exchanges_send_it() -> None:
    stream = WalkStream(Tape(iter([("BTCUSDT", 67012.5)]), 1), 2, None)
    line = b'{"symbol":"BTCUSDT","price":67012.5,"timestamp":1763827200123}\n'
    assert drain(stream, [], now=1763827200123) == line * 2


@settings(deadline=None)
@given(st.lists(st.integers(1, 250), max_size=10), st.integers(1, 2000))
def test_a_stream_is_the_same_in_blocks_of_any_size(sizes: list[int], ticks: int) -> None:
    block = drain(WalkStream(Tape(numbered(), LENGTH), ticks, None), sizes)
    there_and_back = [*range(1, LENGTH + 1), *range(LENGTH, 0, -1)]
    assert prices(block) == [there_and_back[number % (2 * LENGTH)] for number in range(ticks)]
    assert block.count(b"\n") == ticks
    assert block.count(b'"timestamp":5}\n') == ticks


def test_a_block_is_never_larger_than_asked_for() -> None:
    stream = WalkStream(Tape(numbered(), LENGTH), 0, None)
    for size in (1, 7, 299, 5):
        assert 1 <= stream.render(size, 5).count(b"\n") <= size


def test_streams_on_one_tape_do_not_disturb_each_other() -> None:
    tape = Tape(numbered(), LENGTH)
    first, second = WalkStream(tape, 0, None), WalkStream(tape, 0, None)
    assert first.render(10, 5) == second.render(10, 5)
    assert first.position == 10
    assert prices(second.render(2, 9)) == prices(first.render(2, 5)) == [11, 12]


def test_a_clock_gives_each_tick_its_time() -> None:
    stream = WalkStream(Tape(numbered(), LENGTH), 3, lambda tick: 1000 + 10 * tick)
    assert re.findall(rb'"timestamp":(\d+)}\n', drain(stream, [2])) == [b"1000", b"1010", b"1020"]


@pytest.mark.parametrize("content", [b"", b"one\ntwo\n\n", b"one\r\ntwo", b'{"timestamp":17}\n\xff\n'])
@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 3), max_size=3))
def test_a_replay_is_the_file(tmp_path_factory: pytest.TempPathFactory, content: bytes, sizes: list[int]) -> None:
    path = tmp_path_factory.mktemp("replay") / "file"
    path.write_bytes(content)
    assert drain(ReplayStream(path, 0, retime=False), sizes) == content


def test_a_replay_can_be_retimed_and_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b'{"timestamp":17}\nnoise\n{"timestamp":18}\n')
    assert drain(ReplayStream(path, 0, retime=True), [1]) == b'{"timestamp":5}\nnoise\n{"timestamp":5}\n'
    assert drain(ReplayStream(path, 2, retime=False), []) == b'{"timestamp":17}\nnoise\n'
