"""Faults of lines: the good ticks stay complete, and the bad lines are as bad as their reason says."""

import json
import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testgen.faults import GARBAGE, LONG, UNKNOWN, FaultyStream
from testgen.render import Tape, WalkStream
from testgen.settings import Duration, Faults

NOW = 1763827200123
TICKS = 300


def clean(count: int = TICKS) -> WalkStream:
    symbols = (("BTCUSDT", float(number)) for number in range(1, count + 1))
    return WalkStream(Tape(symbols, count), count, None)


def lines(faults: Faults, sizes: list[int] | None = None, seed: int = 1) -> list[bytes]:
    stream = FaultyStream(clean(), faults, random.Random(seed))
    blocks = [stream.render(size, NOW) for size in sizes or []]
    while block := stream.render(64, NOW):
        blocks.append(block)
    return b"".join(blocks).splitlines(keepends=True)


CLEAN = clean().render(TICKS, NOW).splitlines(keepends=True)


def test_no_faults_change_nothing() -> None:
    assert lines(Faults()) == CLEAN


@settings(max_examples=30, deadline=None)
@given(st.builds(Faults, *[st.sampled_from([0.0, 0.3, 1.0])] * 5), st.lists(st.integers(1, 50), max_size=5))
def test_every_good_tick_is_there_and_blocks_do_not_matter(faults: Faults, sizes: list[int]) -> None:
    sent = lines(faults, sizes)
    assert sent == lines(faults)
    counts = Counter(sent)
    for line in CLEAN:
        assert 1 <= counts[line] <= (2 if faults.duplicates else 1)


def test_duplicates_and_reordered_ticks_are_the_same_ticks() -> None:
    doubled = lines(Faults(duplicates=0.3))
    assert TICKS < len(doubled) < 2 * TICKS
    assert set(doubled) == set(CLEAN)
    moved = lines(Faults(reorder=0.3))
    assert moved != CLEAN
    assert sorted(moved) == sorted(CLEAN)


def test_late_ticks_are_late_by_as_much_as_was_said() -> None:
    stamps = [json.loads(line)["timestamp"] for line in lines(Faults(late=0.3, late_by=Duration(2)))]
    assert len(stamps) == TICKS
    late = [NOW - stamp for stamp in stamps if stamp != NOW]
    assert 0.2 < len(late) / TICKS < 0.4
    assert 1 <= min(late) <= max(late) <= 2000


def test_extra_lines_come_by_their_share() -> None:
    for faults, extra in (
        (Faults(unknown=0.3), {UNKNOWN % NOW}),
        (Faults(long_lines=0.3), {LONG % NOW}),
        (Faults(garbage=0.3), {line.replace(b"%d", b"%d" % NOW) for kind in GARBAGE.values() for line in kind}),
    ):
        added = [line.removesuffix(b"\n") for line in lines(faults) if line not in CLEAN]
        assert 0.2 < len(added) / TICKS < 0.4
        assert set(added) <= extra
    assert len(LONG) > 64 * 1024


def valid(line: bytes) -> bool:
    """The rules of the feed, except for the known symbols."""
    try:
        tick = json.loads(line.decode())
    except ValueError:
        return False
    if not isinstance(tick, dict):
        return False
    price, stamp = tick.get("price"), tick.get("timestamp")
    if not isinstance(tick.get("symbol"), str) or not isinstance(price, int | float) or not isinstance(stamp, int):
        return False
    return math.isfinite(price) and price > 0 and abs(stamp - NOW) < 60_000


@pytest.mark.parametrize("line", [line for kind in GARBAGE.values() for line in kind])
def test_garbage_is_garbage(line: bytes) -> None:
    assert not valid(line.replace(b"%d", b"%d" % NOW))
    assert b"\n" not in line
