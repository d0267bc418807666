"""The recent series of one pair on one exchange: a packed record a 100 ms slice, in blocks that age out whole."""

import struct
from bisect import bisect_left
from collections.abc import Iterator

from marketflow.domain.bar import SLICE_MS, Bar
from marketflow.domain.period import Span, floor
from marketflow.domain.summary import Summary, merge_in_order

BLOCK_MS = 10_000
"""Length in milliseconds of a block of the series, aligned to the Unix epoch."""

_RECORD = struct.Struct("<dddIBB")  # high, low, total, count, and when in the slice high and low were
RECORD_BYTES = _RECORD.size


def pack(summary: Summary) -> bytes:
    """Return the record of a slice; its start is not in it, and must be kept beside it."""
    return _RECORD.pack(
        summary.high,
        summary.low,
        summary.total,
        summary.count,
        summary.high_time % SLICE_MS,
        summary.low_time % SLICE_MS,
    )


def unpack(record: bytes, start: int) -> Summary:
    """Return the summary of the slice that starts at `start` (Unix ms). Raises struct.error for other bytes."""
    high, low, total, count, high_offset, low_offset = _RECORD.unpack(record)
    return Summary(high, start + high_offset, low, start + low_offset, total, count)


def count_of(record: bytes) -> int:
    """Return the number of ticks in a record."""
    return int(_RECORD.unpack(record)[3])


def pack_bar(bar: Bar, known: bytes | None) -> bytes:
    """Return the record of a slice with the ticks of a bar of it, besides those of the record already `known`."""
    high_offset, low_offset = bar.high_time % SLICE_MS, bar.low_time % SLICE_MS
    if known is None:
        return _RECORD.pack(bar.high, bar.low, bar.total, bar.count, high_offset, low_offset)
    high, low, total, count, known_high_offset, known_low_offset = _RECORD.unpack(known)
    if bar.high > high:
        high = bar.high
    elif bar.high < high or known_high_offset < high_offset:
        high_offset = known_high_offset
    if bar.low < low:
        low = bar.low
    elif bar.low > low or known_low_offset < low_offset:
        low_offset = known_low_offset
    return _RECORD.pack(high, low, total + bar.total, count + bar.count, high_offset, low_offset)


class _Block:
    """The slices of ten seconds that have ticks: which they are, and their records, both in order of time."""

    __slots__ = ("known", "records", "slices", "whole")

    def __init__(self) -> None:
        self.slices = bytearray()
        self.records = bytearray()
        self.whole: Summary | None = None
        self.known: tuple[int, int, Summary | None] | None = None
        """The last part that was asked for: its first slice, its end, and what it amounts to."""

    def get(self, index: int) -> bytes | None:
        at = self.slices.find(index)
        return None if at < 0 else bytes(self.records[at * RECORD_BYTES : (at + 1) * RECORD_BYTES])

    def put(self, index: int, record: bytes) -> None:
        self.whole = self.known = None
        at = self.slices.find(index)
        if at < 0:
            at = bisect_left(self.slices, index)
            self.slices.insert(at, index)
            self.records[at * RECORD_BYTES : at * RECORD_BYTES] = record
        else:
            self.records[at * RECORD_BYTES : (at + 1) * RECORD_BYTES] = record

    def items(self, start: int) -> Iterator[tuple[int, bytes]]:
        for at, index in enumerate(self.slices):
            yield start + index * SLICE_MS, bytes(self.records[at * RECORD_BYTES : (at + 1) * RECORD_BYTES])

    def summary(self, start: int, span: Span) -> Summary | None:
        if span.start <= start and start + BLOCK_MS <= span.end:
            if self.whole is None:
                self.whole = self._summarize(start, 0, BLOCK_MS // SLICE_MS)
            return self.whole
        first = max(0, (span.start - start) // SLICE_MS)
        end = min(BLOCK_MS, span.end - start) // SLICE_MS
        known = self.known
        if known is None or known[0] != first or known[1] != end:
            known = self.known = (first, end, self._summarize(start, first, end))
        return known[2]

    def _summarize(self, start: int, first: int, end: int) -> Summary | None:
        """What the slices from `first` to before `end` amount to. By columns: this is most of a query's work."""
        at, to = bisect_left(self.slices, first), bisect_left(self.slices, end)
        if at == to:
            return None
        records = _RECORD.iter_unpack(self.records[at * RECORD_BYTES : to * RECORD_BYTES])
        highs, lows, totals, counts, high_offsets, low_offsets = zip(*records, strict=True)
        high, low = max(highs), min(lows)
        # In order of time, so that of equal ones the first is the earliest.
        high_at, low_at = highs.index(high), lows.index(low)
        return Summary(
            high,
            start + self.slices[at + high_at] * SLICE_MS + high_offsets[high_at],
            low,
            start + self.slices[at + low_at] * SLICE_MS + low_offsets[low_at],
            sum(totals),
            sum(counts),
        )


class Series:
    """Slice records of one pair on one exchange by their start (Unix ms, a multiple of 100)."""

    __slots__ = ("_blocks",)

    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}

    def get(self, start: int) -> bytes | None:
        """Return the record of the slice at `start`, or None when it has no tick."""
        at = start - start % BLOCK_MS
        block = self._blocks.get(at)
        return None if block is None else block.get((start - at) // SLICE_MS)

    def put(self, start: int, record: bytes) -> None:
        """Set the whole state of the slice at `start`."""
        at = start - start % BLOCK_MS
        block = self._blocks.get(at)
        if block is None:
            block = self._blocks[at] = _Block()
        block.put((start - at) // SLICE_MS, record)

    def put_newer(self, start: int, record: bytes) -> bool:
        """Set the slice at `start` unless what is known has as many ticks: states of one slice only grow."""
        known = self.get(start)
        if known is not None and count_of(known) >= count_of(record):
            return False
        self.put(start, record)
        return True

    def drop_before(self, time: int) -> None:
        """Forget the blocks that end at or before `time` (Unix ms)."""
        for at in [at for at in self._blocks if at + BLOCK_MS <= time]:
            del self._blocks[at]

    def summary(self, span: Span) -> Summary | None:
        """Return what the slices that start in the span amount to (None: no tick). Its ends are multiples of 100 ms."""
        blocks = self._blocks
        parts = [
            part
            for at in range(floor(span.start, BLOCK_MS), span.end, BLOCK_MS)
            if at in blocks and (part := blocks[at].summary(at, span)) is not None
        ]
        return merge_in_order(parts)

    def items(self) -> Iterator[tuple[int, bytes]]:
        """Yield each slice's start and record."""
        for at, block in self._blocks.items():
            yield from block.items(at)

    def __len__(self) -> int:
        return sum(len(block.slices) for block in self._blocks.values())
