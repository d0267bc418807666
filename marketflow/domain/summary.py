"""Summaries: the part of a bar that answers a period (highest, lowest, average), and how summaries merge."""

from collections.abc import Sequence
from typing import NamedTuple

from marketflow.domain.bar import Bar


class Summary(NamedTuple):
    """High and low with their times (Unix ms), total and count of at least one tick. Prices in quote currency."""

    high: float
    high_time: int
    low: float
    low_time: int
    total: float
    count: int  # type: ignore[assignment]  # the field's name; tuple.count is of no use here

    def merge(self, other: "Summary") -> "Summary":
        """Return the summary of the ticks of both; a price reached twice keeps the earlier time."""
        high, low = self, self
        if other.high > self.high or (other.high == self.high and other.high_time < self.high_time):
            high = other
        if other.low < self.low or (other.low == self.low and other.low_time < self.low_time):
            low = other
        return Summary(
            high.high,
            high.high_time,
            low.low,
            low.low_time,
            self.total + other.total,
            self.count + other.count,
        )


def of_bar(bar: Bar) -> Summary:
    """Return the summary of the ticks of a bar."""
    return Summary(bar.high, bar.high_time, bar.low, bar.low_time, bar.total, bar.count)


def merge_in_order(parts: Sequence[Summary]) -> Summary | None:
    """Merge summaries of stretches that follow each other in time; None when there is none. By columns, as there are
    many in a long period."""
    if len(parts) < 2:
        return parts[0] if parts else None
    highs, high_times, lows, low_times, totals, counts = zip(*parts, strict=True)
    high, low = max(highs), min(lows)
    # Of equal ones the first is the earliest.
    return Summary(high, high_times[highs.index(high)], low, low_times[lows.index(low)], sum(totals), sum(counts))


def merge_optional(a: Summary | None, b: Summary | None) -> Summary | None:
    """Merge two summaries of which either may be of no tick at all (None)."""
    if a is None or b is None:
        return a or b
    return a.merge(b)
