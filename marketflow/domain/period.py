"""Durations and periods: how a user writes them and what stretch of time they mean."""

import re
from typing import NamedTuple

from marketflow.domain.bar import SLICE_MS

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)", re.ASCII)


def parse_duration(text: str) -> int:
    """Return the milliseconds of a duration such as `250ms`, `2s`, `1m`, `6h` or `365d`. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("an integer and one of ms, s, m, h, d is expected, such as 30s")
    return int(match[1]) * _UNITS_MS[match[2]]


def parse_period(text: str, retention_ms: int) -> int:
    """Return the milliseconds of a query's period, from 1s to the retention, in s, m, h or d. Raises ValueError."""
    accepted = f"an integer and one of s, m, h, d is expected, from 1s to {format_duration(retention_ms)}, such as 30s"
    if text.endswith("ms"):
        raise ValueError(accepted)
    try:
        period = parse_duration(text)
    except ValueError:
        raise ValueError(accepted) from None
    if not 1_000 <= period <= retention_ms:
        raise ValueError(accepted)
    return period


def format_duration(milliseconds: int) -> str:
    """Return the shortest way to write a duration, the inverse of `parse_duration`."""
    for unit, size in reversed(_UNITS_MS.items()):
        if milliseconds % size == 0 and milliseconds:
            return f"{milliseconds // size}{unit}"
    return "0ms"


class Span(NamedTuple):
    """A stretch of time, `start <= t < end`, in Unix milliseconds."""

    start: int
    end: int


def floor(time: int, grain: int) -> int:
    """Return the last multiple of `grain` that is not after `time` (both in ms)."""
    return time - time % grain


def span_of(now: int, period: int, grain: int = SLICE_MS) -> Span:
    """Return the span that a period means at `now`: it starts `period` before, rounded down to `grain`, and ends now,
    rounded down to a slice (all in ms)."""
    return Span(floor(now - period, grain), floor(now, SLICE_MS))
