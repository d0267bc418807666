"""From the receipt of a tick to its price being seen over REST, at two rates of other ticks."""

from collections.abc import Iterator, Sequence

from tests.load.node import Stretch, running, switch
from tests.load.probe import Seen, probe_of
from tests.load.sources import generator, live_and_test, probe_feed
from tests.load.table import Figure, limit, percentile

SLOW, FAST = 1_000, 50_000
"""Ticks per second over all feeds."""


def figures(short: bool) -> Iterator[Figure]:
    """Measure at the slow rate in test mode, at the fast one in live mode."""
    seconds = 4.0 if short else 20.0
    with generator(rate=SLOW / 3) as slow, generator(rate=FAST / 3) as fast, probe_feed("BTCUSDT") as feed:
        config = live_and_test([*fast.exchanges, feed.exchange], [*slow.exchanges, feed.exchange])
        with running(config) as measured:
            feed.accept()
            measured.wait_for_ticks()
            with probe_of(feed, measured.port) as probe:
                before = measured.sample()
                seen = probe.marks_for(seconds)
                yield _figure(SLOW, 5, seen, measured.since(before))
                switch(measured, "live")
                feed.accept()
                measured.wait_for_ticks(FAST)
                before = measured.sample()
                seen = probe.marks_for(seconds)
                yield _figure(FAST, 20, seen, measured.since(before))


def _figure(rate: int, target: float, seen: Sequence[Seen], stretch: Stretch) -> Figure:
    after = [each.after * 1000 for each in seen]
    request = [each.last_request * 1000 for each in seen]
    return limit(
        f"sent to seen over REST at {rate:,} ticks/s, p99",
        percentile(after, 0.99),
        target,
        "ms",
        f"{len(seen)} ticks, p50 {percentile(after, 0.5):.2f} ms, max {max(after):.1f} ms, of which the request that "
        f"saw it: p50 {percentile(request, 0.5):.2f}, p99 {percentile(request, 0.99):.2f} ms; "
        f"meanwhile {stretch.rate:,.0f} ticks/s, {stretch.cores:.2f} cores",
    )
