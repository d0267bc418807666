"""The series of slices against a plain dictionary, and the records it is made of."""

import functools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from marketflow.domain.bar import fold
from marketflow.domain.period import Span
from marketflow.domain.series import (
    BLOCK_MS,
    RECORD_BYTES,
    Series,
    count_of,
    pack,
    pack_bar,
    unpack,
)
from marketflow.domain.summary import Summary, of_bar

START = 1_763_827_200_000
SLICES = st.integers(0, 250).map(lambda index: START + index * 100)  # two and a half blocks
DYADIC = st.integers(1, 4096).map(lambda eighths: eighths / 8)


@st.composite
def summaries(draw: st.DrawFn, start: int) -> Summary:
    low, high = sorted((draw(DYADIC), draw(DYADIC)))
    low_time, high_time = draw(st.integers(start, start + 99)), draw(st.integers(start, start + 99))
    return Summary(high, high_time, low, low_time, draw(DYADIC), draw(st.integers(1, 9)))


@st.composite
def placed(draw: st.DrawFn) -> tuple[int, Summary]:
    start = draw(SLICES)
    return start, draw(summaries(start))


@given(placed())
def test_a_record_holds_a_summary(slice_: tuple[int, Summary]) -> None:
    start, summary = slice_
    record = pack(summary)
    assert len(record) == RECORD_BYTES
    assert unpack(record, start) == summary
    assert count_of(record) == summary.count


def test_other_bytes_are_no_record() -> None:
    with pytest.raises(struct.error):
        unpack(b"short", START)


def test_a_bar_is_added_to_the_record_that_is_known() -> None:
    first, second = fold([2.0, 5.0], [START, START + 7], 0), fold([1.0, 5.0], [START + 1, START + 3], 1)
    record = pack_bar(second, pack_bar(first, None))
    assert unpack(record, START) == Summary(5.0, START + 3, 1.0, START + 1, 13.0, 4)
    assert unpack(pack_bar(first, None), START) == of_bar(first)


class SeriesMachine(RuleBasedStateMachine):
    """A series and a dictionary are told the same and must say the same."""

    def __init__(self) -> None:
        super().__init__()
        self.series = Series()
        self.model: dict[int, Summary] = {}

    @rule(slice_=placed())
    def put(self, slice_: tuple[int, Summary]) -> None:
        start, summary = slice_
        self.series.put(start, pack(summary))
        self.model[start] = summary

    @rule(slice_=placed())
    def put_newer(self, slice_: tuple[int, Summary]) -> None:
        start, summary = slice_
        newer = start not in self.model or summary.count > self.model[start].count
        assert self.series.put_newer(start, pack(summary)) is newer
        if newer:
            self.model[start] = summary

    @rule(time=st.integers(START - 100, START + 3 * BLOCK_MS))
    def drop_before(self, time: int) -> None:
        self.series.drop_before(time)
        self.model = {at: known for at, known in self.model.items() if at - at % BLOCK_MS + BLOCK_MS > time}

    @rule(ends=st.tuples(SLICES, SLICES))
    def ask_span(self, ends: tuple[int, int]) -> None:
        self.check_span(min(ends), max(ends))

    @rule(first=st.integers(-1, 2), last=st.integers(0, 3))
    def ask_whole_blocks(self, first: int, last: int) -> None:
        self.check_span(START + first * BLOCK_MS, START + last * BLOCK_MS)

    @rule(start=SLICES)
    def get(self, start: int) -> None:
        known = self.model.get(start)
        assert self.series.get(start) == (None if known is None else pack(known))

    @invariant()
    def same_slices(self) -> None:
        assert len(self.series) == len(self.model)
        assert dict(self.series.items()) == {start: pack(summary) for start, summary in self.model.items()}

    def check_span(self, start: int, end: int) -> None:
        inside = [summary for at, summary in self.model.items() if start <= at < end]
        expected = functools.reduce(Summary.merge, inside) if inside else None
        assert self.series.summary(Span(start, end)) == expected


TestSeries = SeriesMachine.TestCase


FEW_TICKS = st.lists(st.tuples(st.sampled_from([1.0, 1.5, 2.0]), st.integers(START, START + 3)), min_size=1, max_size=4)


@given(FEW_TICKS, FEW_TICKS)
def test_a_bar_on_top_of_a_record_is_the_record_of_both_also_when_prices_repeat(
    known: list[tuple[float, int]], more: list[tuple[float, int]]
) -> None:
    before, after = (
        fold([price for price, _ in ticks], [time for _, time in ticks], order)
        for order, ticks in enumerate((known, more))
    )
    assert pack_bar(after, pack_bar(before, None)) == pack(of_bar(before).merge(of_bar(after)))
