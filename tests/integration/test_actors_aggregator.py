"""The aggregator actor on a real Valkey and PostgreSQL, by a clock of the test: servers away for long, clock steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from gevent.event import Event
from prometheus_client import CollectorRegistry

import actors.aggregator
from actors.aggregator import AggregatorActor, AggregatorMemory
from actors.messages import BarBatch
from actors.runtime import ActorSystem, Backoff, ChildSpec, SupervisorSpec
from marketflow.adapters.postgres import PostgresStore
from marketflow.adapters.redis import RedisWindowJournal, connect
from marketflow.domain.bar import fold
from marketflow.domain.mode import LIVE
from marketflow.metrics import NodeMeters
from tests.support.postgres_server import PostgresServer, running_server
from tests.support.valkey_server import ValkeyServer, running_valkey
from tests.support.waiting import let_greenlets_run, wait_until

SECOND = 1_000
HOUR = 3_600_000
NOON = 1_763_812_800_000
LATENESS = 500
MAX_SKEW = 2_000


class TestClock:
    """A clock that is set by hand; what never steps is moved on with it."""

    __test__ = False

    def __init__(self) -> None:
        self._now = NOON
        self._monotonic = 0

    def now(self) -> int:
        """Return the time of day, Unix ms."""
        return self._now

    def monotonic(self) -> int:
        """Return ms of a clock that never steps."""
        return self._monotonic

    def pass_by(self, milliseconds: int) -> None:
        """Let time go by."""
        self._now += milliseconds
        self._monotonic += milliseconds

    def step(self, milliseconds: int) -> None:
        """Set the time of day, as an operator or NTP does."""
        self._now += milliseconds


class Aggregator:
    """The actor, alone in a system, with what a test asks it."""

    def __init__(self, valkey: ValkeyServer, server: PostgresServer, clock: TestClock) -> None:
        self.clock = clock
        self.memory = AggregatorMemory(SECOND)
        self.meters = NodeMeters(CollectorRegistry(), ["exchange1"], clock)
        self._client = connect(valkey.url)
        self._store = PostgresStore(server.dsn, 1.0, 1.0)
        self._server = server
        self._system = ActorSystem(SupervisorSpec("root"))
        arguments = (self.memory, RedisWindowJournal(self._client), self._store, LATENESS, MAX_SKEW, clock, self.meters)
        self._address = self._system.add_child("root", ChildSpec("aggregator", AggregatorActor, arguments))
        self._order = 0
        self.sent = 0
        self._system.start(10)
        self._address.proxy().adopt("exchange1", afresh=False).get(timeout=5)

    def tick(self, time: int) -> None:
        """Let it have one tick."""
        self._order += 1
        self.sent += 1
        bars = {"BTCUSDT": {time - time % 100: fold([1.0 + self._order % 7], [time], self._order)}}
        self._address.tell(BarBatch(LIVE, "exchange1", bars, 1, self.clock.now()))

    def settle(self) -> None:
        """Let everything that was told be handled."""
        self.wait(lambda: self.meters.feeds()["exchange1"].aggregated == self.sent)

    def let_it_look(self) -> None:
        """Return when the actor has had the time to look a few times whether a window is due."""
        Event().wait(3 * actors.aggregator.STORE_SECONDS)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait, and let the actor work."""

        def look() -> bool:
            let_greenlets_run(0.01)
            return condition()

        wait_until(look, "the actor has done it", 20)

    @property
    def waiting(self) -> int:
        """How many windows wait, in memory or in the journal."""
        return self.meters.feeds()["exchange1"].waiting

    @property
    def in_memory(self) -> int:
        """How many windows wait in memory."""
        return sum(book.waiting() for book in self.memory.books.values())

    def stored(self) -> tuple[int, int]:
        """Return the numbers of rows and of ticks."""
        rows, ticks = self._server.execute(
            "SELECT count(*), coalesce(sum(tick_count), 0)::bigint FROM aggregated_prices"
        )[0]
        return rows, ticks

    def stop(self) -> None:
        """Stop it."""
        self._system.stop(10)
        self._store.close()
        self._client.close()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few windows be many, and retries come soon."""
    monkeypatch.setattr(actors.aggregator, "MOST_WAITING", 100)
    monkeypatch.setattr(actors.aggregator, "RETRY", Backoff(initial=0.02, maximum=0.1))


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with running_valkey("--appendonly", "yes") as running:
        yield running


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with running_server() as running:
        store = PostgresStore(running.dsn)
        store.migrate()
        store.close()
        yield running


@contextmanager
def aggregator(valkey: ValkeyServer, server: PostgresServer, clock: TestClock) -> Iterator[Aggregator]:
    running = Aggregator(valkey, server, clock)
    try:
        yield running
    finally:
        running.stop()


def fill(running: Aggregator, windows: int) -> None:
    """Let so many windows go by, with two ticks each."""
    for _ in range(windows):
        running.tick(running.clock.now())
        running.tick(running.clock.now() + 900)
        running.clock.pass_by(SECOND)
        let_greenlets_run()
    running.settle()
    running.clock.pass_by(10 * SECOND)


def journalled(valkey: ValkeyServer) -> int:
    with connect(valkey.url) as client:
        return int(client.hlen("marketflow:live:windows:exchange1"))


def all_stored(running: Aggregator, windows: int) -> bool:
    return running.waiting == 0 and running.stored() == (windows, running.sent)


def test_what_is_too_much_for_the_memory_is_left_to_the_journal(valkey: ValkeyServer, postgres: PostgresServer) -> None:
    with aggregator(valkey, postgres, TestClock()) as running:
        fill(running, 10)
        running.wait(lambda: all_stored(running, 10))
        postgres.stop()
        fill(running, 600)
        running.wait(lambda: running.in_memory <= 110)
        assert running.waiting == 600
        assert running.memory.room.is_set()
        postgres.start()
        running.wait(lambda: all_stored(running, 610))
        running.wait(lambda: journalled(valkey) == 0)


def test_windows_left_to_the_journal_are_stored_by_the_next_start(
    valkey: ValkeyServer, postgres: PostgresServer
) -> None:
    postgres.stop()
    clock = TestClock()
    with aggregator(valkey, postgres, clock) as running:
        fill(running, 300)
        running.wait(lambda: running.in_memory <= 110)
        sent = running.sent
    postgres.start()
    with aggregator(valkey, postgres, clock) as running:
        running.sent += sent
        running.wait(lambda: all_stored(running, 300))


def test_feeds_are_held_while_neither_server_takes_what_waits(valkey: ValkeyServer, postgres: PostgresServer) -> None:
    with aggregator(valkey, postgres, TestClock()) as running:
        postgres.stop()
        valkey.kill()
        fill(running, 200)
        running.wait(lambda: not running.memory.room.is_set())
        assert running.in_memory == 200
        valkey.start()
        running.wait(running.memory.room.is_set)
        assert running.in_memory <= 110
        postgres.start()
        running.wait(lambda: all_stored(running, 200))


def test_steps_of_the_clock_close_no_window_and_hold_none(valkey: ValkeyServer, postgres: PostgresServer) -> None:
    clock = TestClock()
    with aggregator(valkey, postgres, clock) as running:
        time = NOON
        for number, step in enumerate((0, HOUR, -HOUR, -HOUR, HOUR)):
            running.tick(time)
            running.settle()
            clock.step(step)
            running.let_it_look()
            assert running.stored()[0] == number, "a step has closed the window"
            clock.pass_by(2 * SECOND)
            running.wait(lambda expected=number + 1: all_stored(running, expected))  # type: ignore[misc]  # no type of a default
            time += 2 * SECOND
