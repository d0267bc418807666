"""What more symbols and more feeds cost: at a flood, and at one rate over all of them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from marketflow.domain.bar import SLICE_MS
from marketflow.domain.series import BLOCK_MS, RECORD_BYTES
from marketflow.node import HELD_MS
from tests.load.node import Stretch, running, switch
from tests.load.sources import generator, live_and_test, symbols
from tests.load.table import Figure, limit, ratio
from tests.support.waiting import let_pass

RATE = 50_000
"""Ticks per second over all feeds, besides the flood."""
FEW_SYMBOLS, MANY_SYMBOLS = 5, 5_000
FEW_FEEDS, MANY_FEEDS = 3, 100
_SLICES = (HELD_MS + BLOCK_MS) // SLICE_MS
_SLICE_BYTES = RECORD_BYTES + 5
"""With its share of the block that it is in, as tracemalloc tells."""


class _Size(NamedTuple):
    """What one size of system did at the flood and at the rate, and its memory before and after the flood."""

    flood: Stretch
    steady: Stretch
    started: float
    grown: float


def of_symbols(short: bool) -> Iterator[Figure]:
    """Compare 5 symbols with 5,000."""
    few, many = (_measure(FEW_FEEDS, count, short) for count in (FEW_SYMBOLS, MANY_SYMBOLS))
    yield from _kept("symbols", FEW_SYMBOLS, MANY_SYMBOLS, (few, many), None, 0.5)
    pairs = (MANY_SYMBOLS - FEW_SYMBOLS) * FEW_FEEDS
    has = min(many.flood.seconds * 1000 / SLICE_MS, many.flood.ticks / (MANY_SYMBOLS * FEW_FEEDS))
    held = min(_SLICES, RATE * _SLICES * SLICE_MS / 1000 / (MANY_SYMBOLS * FEW_FEEDS))
    now = (many.grown - few.grown) / pairs
    yield limit(
        f"memory of a symbol and exchange, of 15,000 that share {RATE:,} ticks/s for five minutes",
        (now + max(0.0, held - has) * _SLICE_BYTES) / 1000,
        100,
        "KB",
        f"node {few.grown / 1e6:.0f} MB with {FEW_SYMBOLS}, {many.grown / 1e6:.0f} MB with {MANY_SYMBOLS:,} symbols on "
        f"{FEW_FEEDS} exchanges: {now / 1000:.1f} KB each with some {has:.0f} slices of {_SLICE_BYTES} bytes, and "
        f"{held:.0f} slices after five minutes; {(now + (_SLICES - has) * _SLICE_BYTES) / 1000:.0f} KB if each of its "
        f"{_SLICES} slices had a tick",
    )


def of_feeds(short: bool) -> Iterator[Figure]:
    """Compare 3 feeds with 100."""
    few, many = (_measure(count, FEW_SYMBOLS, short) for count in (FEW_FEEDS, MANY_FEEDS))
    yield from _kept("feeds", FEW_FEEDS, MANY_FEEDS, (few, many), 0.8, 0.8)


def _measure(feeds: int, count: int, short: bool) -> _Size:
    """Measure a system of this size: the flood in test mode, the rate in live mode."""
    warm_up, seconds = (3.0, 6.0) if short else (5.0, 16.0)
    options, config = _of_symbols(count)
    with ExitStack() as stack:
        flood = stack.enter_context(generator(feeds, *options))
        steady = stack.enter_context(generator(feeds, *options, rate=RATE / feeds))
        measured = stack.enter_context(running({**config, **live_and_test(steady.exchanges, flood.exchanges)}))
        measured.wait_connected()
        started = measured.rss()
        let_pass(warm_up)
        flooded = measured.measure(seconds)
        grown = measured.rss()
        switch(measured, "live")
        measured.wait_connected()
        let_pass(warm_up)
        assert measured.system.body("/mode") == {"mode": "live"}
        return _Size(flooded, measured.measure(seconds), started, grown)


def _of_symbols(count: int) -> tuple[Sequence[str], dict[str, Any]]:
    """Return what testgen and the configuration are told for so many symbols."""
    if count == FEW_SYMBOLS:
        return [], {}
    return ["--symbol-count", str(count)], {"symbols": {"allowed": symbols(count)}}


def _kept(
    what: str, fewer: int, more: int, sizes: tuple[_Size, _Size], flooded: float | None, steady: float
) -> Iterator[Figure]:
    """Compare ingest at the flood and at the rate, each with its target.

    A flood of many symbols has none: there each tick is a slice of its own, which is another amount of work.
    """
    few, many = sizes
    for how, a, b, target in (
        (f"at {RATE:,} ticks/s", few.steady, many.steady, steady),
        ("flooded", few.flood, many.flood, flooded),
    ):
        yield ratio(
            f"ingest of {more:,} {what} / {fewer}, {how}",
            b.rate / a.rate,
            target,
            f"{b.rate:,.0f} against {a.rate:,.0f} ticks/s; {b.cost:.2f} against {a.cost:.2f} µs of CPU a tick, "
            f"{b.cores:.2f} against {a.cores:.2f} cores",
        )
