"""The cache actor on a real Valkey that does not answer for a while: what that lacks is written, and no more."""

from collections.abc import Callable, Iterator, Mapping

import pytest

import actors.cache
from actors.cache import CacheActor, CacheMemory
from actors.messages import BarBatch
from actors.runtime import ActorSystem, ChildSpec, SupervisorSpec
from marketflow.adapters.clock import SystemClock
from marketflow.adapters.redis import RedisCluster, RedisPriceCache, connect, new_node_name
from marketflow.domain.bar import SLICE_MS, fold
from marketflow.domain.mode import LIVE, Mode
from marketflow.domain.period import floor
from marketflow.domain.view import Flush
from tests.support.valkey_server import ValkeyServer, running_valkey
from tests.support.waiting import let_greenlets_run, wait_until

RETENTION = 310_000
SLICES = 50


class CountingCache(RedisPriceCache):
    """Counts the slices that were written."""

    slices = 0
    failing = False

    def write(self, mode: Mode, flush: Flush) -> None:
        """Write, and count what was; fail once as a bug would, when told to."""
        if self.failing:
            self.failing = False
            raise RuntimeError("a bug")
        super().write(mode, flush)
        self.slices += sum(len(records) for symbols in flush.slices.values() for records in symbols.values())


class Cache:
    """The actor, alone in a system, with what a test asks it."""

    def __init__(self, valkey: ValkeyServer) -> None:
        clock = SystemClock()
        self.first = floor(clock.now(), SLICE_MS) - SLICES * SLICE_MS
        self._client = client = connect(valkey.url)
        cluster = RedisCluster(client, new_node_name())
        self.redis = CountingCache(client, cluster, clock, series_retention=RETENTION, max_skew=60_000)
        self.memory = CacheMemory(LIVE, clock.now())
        self._system = ActorSystem(SupervisorSpec("root"))
        arguments = (self.memory, self.redis, ["BTCUSDT"], ["exchange1"], RETENTION, clock)
        self._address = self._system.add_child("root", ChildSpec("cache", CacheActor, arguments))
        self._order = 0
        self._system.start(10)

    def tick(self, number: int) -> None:
        """Let it have one tick, in the slice of this number."""
        self._order += 1
        start = self.first + number * SLICE_MS
        bar = fold([1.0 + self._order % 7], [start], self._order)
        self._address.tell(BarBatch(LIVE, "exchange1", {"BTCUSDT": {start: bar}}, 1, start))

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait, and let the actor work."""

        def look() -> bool:
            let_greenlets_run(0.01)
            return condition()

        wait_until(look, "the actor has done it", 20)

    def known(self) -> Mapping[int, bytes]:
        """Return the slices that it answers from."""
        return {start: record for _, series in self.memory.views[LIVE].series() for start, record in series.items()}

    def stored(self) -> Mapping[int, bytes]:
        """Return the slices that Redis has."""
        return self.redis.read_series(LIVE, "exchange1", self.first).get("BTCUSDT", {})

    def close(self) -> None:
        """Stop the actor."""
        self._system.stop(5)
        self._client.close()


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def cache(valkey: ValkeyServer) -> Iterator[Cache]:
    cache = Cache(valkey)
    for number in range(SLICES):
        cache.tick(number)
    cache.wait(lambda: len(cache.stored()) == SLICES)
    yield cache
    cache.close()


def lose_three(valkey: ValkeyServer, cache: Cache) -> None:
    """Let three ticks come while Valkey stands still, the last one where others were."""
    valkey.freeze()
    for number in (SLICES, SLICES + 1, 0):
        cache.tick(number)
    cache.wait(lambda: len(cache.known()) == SLICES + 2 and not cache.memory.redis_up)
    cache.redis.slices = 0


def test_only_what_was_not_acknowledged_is_written_again(valkey: ValkeyServer, cache: Cache) -> None:
    lose_three(valkey, cache)
    valkey.thaw()
    cache.wait(lambda: cache.memory.redis_up)
    assert cache.redis.slices == 3
    assert cache.stored() == cache.known()


def test_an_actor_that_failed_between_flush_and_redis_makes_up_for_it(cache: Cache) -> None:
    cache.redis.slices, cache.redis.failing = 0, True
    cache.tick(SLICES)
    cache.wait(lambda: not cache.redis.failing and cache.memory.redis_up and len(cache.stored()) == SLICES + 1)
    assert cache.redis.slices == 1
    assert cache.stored() == cache.known()


def test_a_server_that_was_restarted_gets_everything(valkey: ValkeyServer, cache: Cache) -> None:
    lose_three(valkey, cache)
    valkey.kill()
    valkey.start()
    cache.wait(lambda: cache.memory.redis_up)
    assert cache.redis.slices == SLICES + 2
    assert cache.stored() == cache.known()


def test_a_server_that_lacks_too_much_gets_everything(
    valkey: ValkeyServer, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.cache, "MOST_MISSING", 2)
    lose_three(valkey, cache)
    valkey.thaw()
    cache.wait(lambda: cache.memory.redis_up)
    assert cache.redis.slices == SLICES + 2
    assert cache.stored() == cache.known()
