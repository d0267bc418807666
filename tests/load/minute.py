"""The rows of 5,000 symbols on three exchanges: how soon they are stored, and whether ticks wait meanwhile."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from tests.load.node import Measured, running
from tests.load.probe import Seen, probe_of
from tests.load.sources import generator, live_and_test, probe_feed, symbols
from tests.load.table import Figure, limit, percentile
from tests.support.waiting import wait_until

RATE = 15_000
"""Ticks per second over all feeds: one of each symbol and exchange."""
SYMBOLS, EXCHANGES = 5_000, 3
INTERVAL_MS, LATENESS_MS = 10_000, 2_000
_MARGIN_MS = 200
_STORING_MS = 3_000
"""How long after they were due rows may still be on their way."""


class _Stored(NamedTuple):
    """A window's rows; times in Unix ms."""

    start: int
    rows: int
    ticks: int
    last: int

    @property
    def due(self) -> int:
        """When they were to be stored."""
        return self.start + INTERVAL_MS + LATENESS_MS


def figures(short: bool) -> Iterator[Figure]:
    """Watch some windows being stored; a tick of our own every few milliseconds shows every pause."""
    windows = 2 if short else 5
    names = symbols(SYMBOLS)
    with (
        generator(EXCHANGES, "--symbol-count", str(SYMBOLS), rate=RATE / EXCHANGES) as source,
        probe_feed(names[0]) as feed,
    ):
        exchanges = [*source.exchanges, feed.exchange]
        config: dict[str, dict[str, Any]] = {
            "symbols": {"allowed": names},
            "aggregation": {"interval": f"{INTERVAL_MS}ms", "lateness": f"{LATENESS_MS}ms"},
            **live_and_test(exchanges, exchanges),
        }
        with running(config) as measured:
            feed.accept()
            measured.wait_for_ticks(RATE)
            began = _now()
            offset = time.time() - time.perf_counter()
            with probe_of(feed, measured.port) as probe:
                before = measured.sample()
                # The first window is not whole.
                seen = probe.marks_for((windows + 1) * INTERVAL_MS / 1000 + (LATENESS_MS + _STORING_MS) / 1000)
                stretch = measured.since(before)
            first = began // INTERVAL_MS * INTERVAL_MS + INTERVAL_MS
            stored = wait_until(lambda: _enough(measured, first, windows), "the windows are stored", 20)
    yield limit(
        f"{SYMBOLS * EXCHANGES:,} rows stored after they are due",
        max(each.last - each.due for each in stored) / 1000,
        2,
        "s",
        f"{len(stored)} windows of {INTERVAL_MS // 1000} s, last row of each: "
        + ", ".join(f"{(each.last - each.due) / 1000:.2f} s" for each in stored)
        + f"; {stretch.rate:,.0f} ticks/s meanwhile, {stretch.cores:.2f} cores",
    )
    yield _pauses(seen, stored, offset)


def _pauses(seen: Sequence[Seen], stored: Sequence[_Stored], offset: float) -> Figure:
    """Return the longest wait of a tick, and tell those near the storing from the others."""
    near: list[float] = []
    apart: list[float] = []
    for each in seen:
        sent = (each.sent + offset) * 1000
        until = sent + each.after * 1000
        storing = any(sent <= window.last + _MARGIN_MS and window.due - _MARGIN_MS <= until for window in stored)
        (near if storing else apart).append(each.after * 1000)
    return limit(
        "longest wait of a tick while they are stored",
        max(near),
        100,
        "ms",
        f"sent to seen over REST, {len(near)} ticks, p99 {percentile(near, 0.99):.0f} ms; at other times {len(apart)} "
        f"ticks, p99 {percentile(apart, 0.99):.0f} ms, longest {max(apart):.0f} ms",
    )


def _enough(measured: Measured, first: int, windows: int) -> list[_Stored]:
    """Return so many whole windows since the first, or nothing."""
    found = [each for each in _stored(measured, first) if each.rows == SYMBOLS * EXCHANGES]
    return found[:windows] if len(found) >= windows else []


def _stored(measured: Measured, first: int) -> list[_Stored]:
    with closing(measured.system.postgres()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT (extract(epoch FROM window_start) * 1000)::bigint, count(*), sum(tick_count)::bigint,"
            ' (extract(epoch FROM max("timestamp")) * 1000)::bigint FROM aggregated_prices'
            " WHERE window_start >= to_timestamp(%s) AND exchange <> 'probe' GROUP BY 1 ORDER BY 1",
            (first / 1000,),
        )
        return [_Stored(*row) for row in cursor.fetchall()]


def _now() -> int:
    return time.time_ns() // 1_000_000
