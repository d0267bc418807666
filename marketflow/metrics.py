"""The metrics of a node, in its own Prometheus registry."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.runtime import ActorInfo
from marketflow.domain.feed import REASONS, Reason
from marketflow.ports import Clock

_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


QUIET_MS = 5_000
"""Lines that are still in flight so long after the last receipt have been lost: the counts do not hold."""


class FeedCounts:
    """The counts of one exchange since the start, and when (monotonic ms) the last lines were received."""

    __slots__ = ("aggregated", "failed", "last_received", "received", "rejected")

    def __init__(self) -> None:
        self.received = 0
        self.rejected: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self.aggregated = 0
        self.failed = 0
        self.last_received = 0

    @property
    def in_flight(self) -> int:
        """Lines that were received and are neither rejected, aggregated nor lost yet; never negative."""
        return self.received - sum(self.rejected.values()) - self.aggregated - self.failed

    def hold(self, monotonic: int) -> bool:
        """Tell whether received = rejected + aggregated + failed, but for what is on its way at `monotonic` (ms)."""
        return self.in_flight == 0 or (self.in_flight > 0 and monotonic - self.last_received < QUIET_MS)


class NodeMeters:
    """Implements the port Meters: plain numbers on the way of the ticks, turned into metrics when they are read."""

    def __init__(self, registry: CollectorRegistry, exchanges: Sequence[str], clock: Clock) -> None:
        self.feeds = {exchange: FeedCounts() for exchange in exchanges}
        self._clock = clock
        stored = Counter("marketflow_windows_stored", "Windows written to PostgreSQL.", ["exchange"], registry=registry)
        self._stored = {exchange: stored.labels(exchange) for exchange in exchanges}
        self._latency = Histogram(
            "marketflow_batch_aggregation_seconds",
            "From the receipt of a batch to its ticks being part of their windows.",
            buckets=_LATENCIES,
            registry=registry,
        )
        registry.register(_FeedCollector(self.feeds))

    def hold(self) -> bool:
        """Tell whether the counts of every exchange hold."""
        now = self._clock.monotonic()
        return all(counts.hold(now) for counts in self.feeds.values())

    def totals(self) -> dict[str, int]:
        """Return the counts over all exchanges."""
        feeds = self.feeds.values()
        return {
            "received": sum(counts.received for counts in feeds),
            "rejected": sum(sum(counts.rejected.values()) for counts in feeds),
            "aggregated": sum(counts.aggregated for counts in feeds),
            "failed": sum(counts.failed for counts in feeds),
            "in_flight": sum(counts.in_flight for counts in feeds),
        }

    def received(self, exchange: str, lines: int) -> None:
        """Count whole lines received."""
        counts = self.feeds[exchange]
        counts.received += lines
        counts.last_received = self._clock.monotonic()

    def rejected(self, exchange: str, reason: Reason, lines: int) -> None:
        """Count lines rejected as bad."""
        self.feeds[exchange].rejected[reason] += lines

    def failed(self, exchange: str, lines: int) -> None:
        """Count lines of a batch that a fault of our own lost."""
        self.feeds[exchange].failed += lines

    def aggregated(self, exchange: str, ticks: int, received_at: int) -> None:
        """Count ticks that are part of their windows now."""
        self.feeds[exchange].aggregated += ticks
        self._latency.observe(max(0, self._clock.now() - received_at) / 1000)

    def stored(self, exchange: str, windows: int) -> None:
        """Count windows stored in PostgreSQL."""
        self._stored[exchange].inc(windows)


class _FeedCollector(Collector):
    def __init__(self, feeds: dict[str, FeedCounts]) -> None:
        self._feeds = feeds

    def collect(self) -> Iterator[Metric]:
        received = CounterMetricFamily("marketflow_ticks_received", "Lines received.", labels=["exchange"])
        rejected = CounterMetricFamily("marketflow_ticks_rejected", "Lines rejected.", labels=["exchange", "reason"])
        aggregated = CounterMetricFamily(
            "marketflow_ticks_aggregated", "Ticks that are part of their windows.", labels=["exchange"]
        )
        failed = CounterMetricFamily(
            "marketflow_ticks_failed", "Lines of batches that a fault of MarketFlow lost.", labels=["exchange"]
        )
        for exchange, counts in self._feeds.items():
            received.add_metric([exchange], counts.received)
            aggregated.add_metric([exchange], counts.aggregated)
            failed.add_metric([exchange], counts.failed)
            for reason, lines in counts.rejected.items():
                rejected.add_metric([exchange, reason], lines)
        yield from (received, rejected, aggregated, failed)


class ActorCollector(Collector):
    """Restarts and mailbox depths, read from the supervision tree."""

    def __init__(self, tree: Callable[[], list[ActorInfo]]) -> None:
        self._tree = tree

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all actors."""
        restarts = CounterMetricFamily("marketflow_actor_restarts", "Restarts of an actor.", labels=["actor"])
        depth = GaugeMetricFamily("marketflow_mailbox_depth", "Messages waiting in a mailbox.", labels=["actor"])
        for actor in self._tree():
            if actor.bound:
                name = actor.path.partition("/")[2]
                restarts.add_metric([name], actor.restarts)
                depth.add_metric([name], actor.depth)
        yield from (restarts, depth)
