"""A batch that an actor fails on is counted once and kept for inspection; a batch that was handed on is not lost."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from gevent.event import Event
from prometheus_client import CollectorRegistry

from actors.messages import BarBatch, Batch
from actors.price_worker import PriceWorkerActor
from actors.router import RouterActor
from actors.runtime import ActorSystem, Backoff, ChildSpec, GeventActor, Intensity, MailboxSpec, SupervisorSpec
from marketflow.adapters.clock import SystemClock
from marketflow.domain.feed import Decoded, Decoder
from marketflow.domain.mode import LIVE
from marketflow.losses import LossCounter
from marketflow.metrics import FeedCounts, NodeMeters
from tests.support.waiting import greenlets_until, let_greenlets_run

POISON = b'{"poison":1}\n'
MAX_SKEW = 60_000


class PoisonedDecoder(Decoder):
    """Fails as a decoder with a bug would."""

    def decode(self, lines: bytes, count: int) -> Decoded:
        """Decode what is no poison."""
        if lines == POISON:
            raise ZeroDivisionError("a bug")
        return super().decode(lines, count)


class Sink(GeventActor):
    """Stands where the cache and the aggregator are: counts, once it may."""

    mailbox = MailboxSpec(bound=1)

    def __init__(self, open_: Event, counted: Callable[[BarBatch], None]) -> None:
        super().__init__()
        self._opened = open_
        self._counted = counted

    def on_receive(self, bars: BarBatch) -> None:
        """Count a batch."""
        self._opened.wait()
        self._counted(bars)


class Pipeline:
    """A router, a worker, and what comes after them."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.meters = NodeMeters(CollectorRegistry(), ["exchange1"], self.clock)
        self.cached = 0
        self.open = Event()
        self.open.set()
        self.system = ActorSystem(SupervisorSpec("root", intensity=Intensity(1_000), backoff=Backoff(0.001, 0.01)))
        add = self.system.add_child
        self.cache = add("root", ChildSpec("cache", Sink, (self.open, self._cached)))
        self.aggregator = add("root", ChildSpec("aggregator", Sink, (self.open, self._aggregated)))
        decoder = PoisonedDecoder(["BTCUSDT"])
        arguments = (decoder, MAX_SKEW, self.cache, self.aggregator, self.meters)
        self.worker = add("root", ChildSpec("worker", PriceWorkerActor, arguments))
        self.router = add("root", ChildSpec("router", RouterActor, ([self.worker],)))
        self.system.subscribe(LossCounter(self.meters, self.aggregator.path))
        self.system.start(5)
        self._order = 0

    def _cached(self, bars: BarBatch) -> None:
        self.cached += bars.ticks

    def _aggregated(self, bars: BarBatch) -> None:
        self.meters.aggregated(bars.exchange, bars.ticks, bars.received_at)

    def send(self, data: bytes) -> None:
        """Let the router have a batch."""
        self._order += 1
        lines = data.count(b"\n")
        self.meters.received("exchange1", lines)
        self.router.tell(Batch(LIVE, "exchange1", self._order, self.clock.now(), lines, data))

    def tick(self) -> None:
        """Let the router have a batch of one tick."""
        fields = {"symbol": "BTCUSDT", "price": 1.5, "timestamp": self.clock.now()}
        self.send(json.dumps(fields).encode() + b"\n")

    @property
    def counts(self) -> FeedCounts:
        """What was counted."""
        return self.meters.feeds()["exchange1"]

    def settle(self) -> None:
        """Return when nothing is on its way."""
        greenlets_until(lambda: not self.counts.in_flight, "nothing is on its way")


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    running = Pipeline()
    yield running
    running.open.set()
    running.system.stop(5)


@contextmanager
def full(pipeline: Pipeline) -> Iterator[None]:
    """Let the worker be held by what comes after it."""
    pipeline.open.clear()
    for _ in range(5):
        pipeline.tick()
    greenlets_until(lambda: pipeline.worker.cell.in_hand, "the worker is held")
    yield
    pipeline.open.set()


def fill_router(pipeline: Pipeline) -> None:
    """Send until one more waits behind the one that the router is held with."""

    def waits_after_one_more() -> bool:
        pipeline.tick()
        let_greenlets_run()
        return pipeline.router.depth > 0

    greenlets_until(waits_after_one_more, "one waits behind the one that the router is held with")


def kill(address: Any) -> None:
    """Kill an actor's greenlet."""
    address.cell._greenlet.kill(block=False)


def test_a_batch_that_the_worker_fails_on_is_counted_and_kept(pipeline: Pipeline) -> None:
    pipeline.tick()
    pipeline.send(POISON)
    pipeline.tick()
    pipeline.settle()
    assert (pipeline.counts.received, pipeline.counts.aggregated, pipeline.counts.failed) == (3, 2, 1)
    (letter,) = pipeline.system.dead_letters.last
    assert letter.message.data == POISON


def test_only_the_last_batches_are_kept(pipeline: Pipeline) -> None:
    letters = pipeline.system.dead_letters
    for _ in range(100):
        letters.add("root/worker", Batch(LIVE, "exchange1", 1, 1, 1, POISON), "failed")
    assert len(letters.last) == 32


def test_a_worker_killed_while_it_is_held_loses_its_batch_or_not_but_never_half(pipeline: Pipeline) -> None:
    for _ in range(20):
        with full(pipeline):
            kill(pipeline.worker)
            let_greenlets_run(0.002)
        pipeline.settle()
    counts = pipeline.counts
    assert counts.received == counts.aggregated + counts.failed == 100
    greenlets_until(lambda: pipeline.cached == counts.aggregated, "the cache has what the windows have")


def test_a_router_killed_while_it_is_held_counts_what_it_loses(pipeline: Pipeline) -> None:
    with full(pipeline):
        fill_router(pipeline)
        kill(pipeline.router)
        let_greenlets_run(0.01)
    pipeline.settle()
    counts = pipeline.counts
    assert counts.failed == 1
    assert counts.received == counts.aggregated + counts.failed


def test_a_batch_left_in_a_stopped_actor_is_counted(pipeline: Pipeline) -> None:
    with full(pipeline):
        fill_router(pipeline)
        pipeline.system.stop(0.1)
    assert pipeline.counts.failed > 0
    assert pipeline.counts.received == pipeline.counts.aggregated + pipeline.counts.failed
