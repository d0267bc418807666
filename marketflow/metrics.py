"""The metrics of a node, in its own Prometheus registry."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.runtime import ActorInfo, DeadLetters
from marketflow.domain.feed import REASONS, Reason
from marketflow.ports import Clock

_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


QUIET_MS = 5_000
"""Lines that are still in flight so long after the last receipt have been lost: the counts do not hold."""


class FeedCounts(msgspec.Struct, array_like=True):
    """The counts of one exchange since the start of the node."""

    received: int = 0
    rejected: dict[Reason, int] = msgspec.field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    aggregated: int = 0
    failed: int = 0
    stored: int = 0
    waiting: int = 0

    @property
    def in_flight(self) -> int:
        """Lines that were received and are neither rejected, aggregated nor lost yet; never negative."""
        return self.received - sum(self.rejected.values()) - self.aggregated - self.failed

    def __add__(self, other: "FeedCounts") -> "FeedCounts":
        """Return the counts of two nodes together."""
        return FeedCounts(
            self.received + other.received,
            {reason: lines + other.rejected.get(reason, 0) for reason, lines in self.rejected.items()},
            self.aggregated + other.aggregated,
            self.failed + other.failed,
            self.stored + other.stored,
            self.waiting + other.waiting,
        )


class NodeMeters:
    """Implements the port Meters: plain numbers on the way of the ticks, turned into metrics when they are read."""

    def __init__(self, registry: CollectorRegistry, exchanges: Sequence[str], clock: Clock) -> None:
        self._feeds = {exchange: FeedCounts() for exchange in exchanges}
        self._last_received = dict.fromkeys(exchanges, 0)
        self._siblings: list[dict[str, FeedCounts]] = []
        self._clock = clock
        self._latency = Histogram(
            "marketflow_batch_aggregation_seconds",
            "From the receipt of a batch to its ticks being part of their windows.",
            buckets=_LATENCIES,
            registry=registry,
        )
        registry.register(_FeedCollector(self.feeds))

    def received(self, exchange: str, lines: int) -> None:
        """Count whole lines received."""
        self._feeds[exchange].received += lines
        self._last_received[exchange] = self._clock.monotonic()

    def rejected(self, exchange: str, reason: Reason, lines: int) -> None:
        """Count lines rejected as bad."""
        self._feeds[exchange].rejected[reason] += lines

    def failed(self, exchange: str, lines: int) -> None:
        """Count lines of a batch that a fault of our own lost."""
        self._feeds[exchange].failed += lines

    def aggregated(self, exchange: str, ticks: int, received_at: int) -> None:
        """Count ticks that are part of their windows now."""
        self._feeds[exchange].aggregated += ticks
        self._latency.observe(max(0, self._clock.now() - received_at) / 1000)

    def stored(self, exchange: str, windows: int) -> None:
        """Count windows written to PostgreSQL."""
        self._feeds[exchange].stored += windows

    def waiting(self, exchange: str, windows: int) -> None:
        """Note how many windows are not stored as they are."""
        self._feeds[exchange].waiting = windows

    def snapshot(self) -> bytes:
        """Return this node's counts, for the other workers of its server."""
        return _encode(self._feeds)

    def learn(self, siblings: Iterable[bytes]) -> None:
        """Take over the snapshots of the other workers of this node's server; together they are one to a user."""
        self._siblings = [_decode(snapshot) for snapshot in siblings]

    def feeds(self) -> dict[str, FeedCounts]:
        """Return the counts by exchange, over all workers of this node's server."""
        nothing = FeedCounts()
        return {
            exchange: sum((each.get(exchange, nothing) for each in self._siblings), start=counts)
            for exchange, counts in self._feeds.items()
        }

    def hold(self) -> bool:
        """Tell whether received = rejected + aggregated + failed on this node, but for what is on its way."""
        now = self._clock.monotonic()
        return all(
            counts.in_flight == 0 or (counts.in_flight > 0 and now - self._last_received[exchange] < QUIET_MS)
            for exchange, counts in self._feeds.items()
        )

    def totals(self) -> dict[str, int]:
        """Return the counts over all exchanges."""
        total = sum(self.feeds().values(), start=FeedCounts())
        return {
            "received": total.received,
            "rejected": sum(total.rejected.values()),
            "aggregated": total.aggregated,
            "failed": total.failed,
            "in_flight": total.in_flight,
        }


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, FeedCounts]).decode


class _FeedCollector(Collector):
    def __init__(self, feeds: Callable[[], dict[str, FeedCounts]]) -> None:
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
        stored = CounterMetricFamily("marketflow_windows_stored", "Windows written to PostgreSQL.", labels=["exchange"])
        waiting = GaugeMetricFamily(
            "marketflow_windows_waiting", "Windows that are not stored as they are.", labels=["exchange"]
        )
        for exchange, counts in self._feeds().items():
            waiting.add_metric([exchange], counts.waiting)
            received.add_metric([exchange], counts.received)
            aggregated.add_metric([exchange], counts.aggregated)
            failed.add_metric([exchange], counts.failed)
            stored.add_metric([exchange], counts.stored)
            for reason, lines in counts.rejected.items():
                rejected.add_metric([exchange, reason], lines)
        yield from (received, rejected, aggregated, failed, stored, waiting)


class ActorCollector(Collector):
    """Restarts and mailbox depths, read from the supervision tree, and the messages that nobody handled."""

    def __init__(self, tree: Callable[[], list[ActorInfo]], dead_letters: DeadLetters) -> None:
        self._tree = tree
        self._dead_letters = dead_letters

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all actors."""
        restarts = CounterMetricFamily("marketflow_actor_restarts", "Restarts of an actor.", labels=["actor"])
        depth = GaugeMetricFamily("marketflow_mailbox_depth", "Messages waiting in a mailbox.", labels=["actor"])
        for actor in self._tree():
            if actor.bound:
                name = actor.path.partition("/")[2]
                restarts.add_metric([name], actor.restarts)
                depth.add_metric([name], actor.depth)
        dead = CounterMetricFamily(
            "marketflow_dead_letters", "Messages that no actor handled to the end.", labels=["reason"]
        )
        for reason, messages in self._dead_letters.counts.items():
            dead.add_metric([reason], messages)
        yield from (restarts, depth, dead)
