"""The law of the counts, as health tells it."""

from prometheus_client import CollectorRegistry, generate_latest

from marketflow.metrics import QUIET_MS, NodeMeters


class Clock:
    """A clock that is set by hand."""

    time = 1_000

    def now(self) -> int:
        """Return Unix ms."""
        return self.time

    def monotonic(self) -> int:
        """Return ms."""
        return self.time


def test_lines_may_be_on_their_way_for_a_while_and_then_the_law_is_violated() -> None:
    clock = Clock()
    meters = NodeMeters(CollectorRegistry(), ["a", "b"], clock)
    assert meters.hold()
    meters.received("a", 5)
    assert meters.hold()
    meters.aggregated("a", 3, clock.now())
    meters.rejected("a", "malformed", 1)
    clock.time += QUIET_MS
    assert not meters.hold()
    meters.failed("a", 1)
    assert meters.hold()


def test_more_ticks_than_were_received_violate_the_law_at_once() -> None:
    clock = Clock()
    meters = NodeMeters(CollectorRegistry(), ["a"], clock)
    meters.received("a", 1)
    meters.aggregated("a", 2, clock.now())
    assert not meters.hold()


def test_windows_that_wait_are_a_metric_over_all_workers() -> None:
    registry = CollectorRegistry()
    meters = NodeMeters(registry, ["a"], Clock())
    sibling = NodeMeters(CollectorRegistry(), ["a"], Clock())
    meters.waiting("a", 2)
    sibling.waiting("a", 3)
    meters.learn([sibling.snapshot()])
    assert b'marketflow_windows_waiting{exchange="a"} 5.0' in generate_latest(registry)
