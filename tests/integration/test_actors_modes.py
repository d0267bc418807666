"""The mode supervisor on a real Valkey: a switch that Redis hears of late stays in force."""

from collections.abc import Callable, Iterator

import pytest
from gevent.event import Event
from prometheus_client import CollectorRegistry

from actors.aggregator import AggregatorActor, AggregatorMemory
from actors.cache import CacheActor, CacheMemory
from actors.feeds import FeedsMemory, NodeFeeds
from actors.mode_supervisor import ModeMemory, ModeSupervisorActor
from actors.router import RouterActor
from actors.runtime import ActorSystem, ChildSpec, SupervisorSpec
from marketflow.adapters.clock import SystemClock
from marketflow.adapters.postgres import PostgresStore
from marketflow.adapters.redis import RedisCluster, RedisPriceCache, RedisWindowJournal, connect, new_node_name
from marketflow.adapters.tcp import TcpFeed
from marketflow.domain.mode import LIVE, TEST, Mode
from marketflow.domain.view import Flush
from marketflow.errors import Unavailable
from marketflow.metrics import NodeMeters
from marketflow.ports import Switched
from tests.support.valkey_server import ValkeyServer, running_valkey
from tests.support.waiting import greenlets_until


class SlowToHear(RedisCluster):
    """Does not take the first switch to live mode, and says so only after another mode was told meanwhile."""

    refusing = False
    told: list[Mode]

    def write_mode(self, mode: Mode) -> None:
        """Set the mode for all nodes, but for that once."""
        self.told.append(mode)
        if mode == LIVE and not self.refusing:
            self.refusing = True
            before = len(self.told)
            greenlets_until(lambda: len(self.told) > before, "the next round has told a mode")
            raise Unavailable("too slow")
        super().write_mode(mode)

    def listen(
        self, on_flush: Callable[[Mode, Flush], None], on_mode: Callable[[Mode], None], on_peers: Callable[[], None]
    ) -> None:
        """Hear nothing: in a process whose sockets are not cooperative all would wait for it."""
        raise Unavailable("there is nobody else")


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with running_valkey() as server:
        yield server


def test_a_switch_that_redis_hears_of_late_stays_in_force(valkey: ValkeyServer) -> None:
    clock, client = SystemClock(), connect(valkey.url)
    cluster = SlowToHear(client, new_node_name())
    cluster.told = []
    prices = RedisPriceCache(client, cluster, clock, series_retention=310_000, max_skew=60_000)
    meters = NodeMeters(CollectorRegistry(), [], clock)
    system = ActorSystem(SupervisorSpec("root"))
    cache_memory, memory, windows = CacheMemory(TEST, clock.now()), ModeMemory(TEST, clock.monotonic()), Event()
    cache = system.add_child("root", ChildSpec("cache", CacheActor, (cache_memory, prices, [], [], 310_000, clock)))
    store, journal = PostgresStore("postgresql://127.0.0.1:1/none"), RedisWindowJournal(client)
    arguments = (AggregatorMemory(60_000), journal, store, 2_000, 60_000, clock, meters)
    aggregator = system.add_child("root", ChildSpec("aggregator", AggregatorActor, arguments))
    router = system.add_child("root", ChildSpec("router", RouterActor, ((),)))
    feeds = NodeFeeds(
        FeedsMemory(),
        system,
        "root/feeds",
        [],
        lambda _mode, _exchange: TcpFeed("127.0.0.1", 1),
        cluster,
        aggregator=aggregator,
        router=router,
        room=windows,
        clock=clock,
        meters=meters,
    )
    options = {"symbols": [], "retention": 310_000, "server": "s", "workers": 1}
    options |= {"cache": cache, "clock": clock, "meters": meters}
    spec = ChildSpec("modes", ModeSupervisorActor, (memory, feeds, [], cluster, prices), options)
    modes = system.add_child("root", spec)
    system.start(10)
    try:
        greenlets_until(lambda: memory.joined, "it has joined")
        assert modes.proxy().switch(LIVE).get(timeout=20) == Switched(LIVE, TEST, changed=True)
        greenlets_until(lambda: memory.untold is None, "the switch is told")
        assert cluster.told == [TEST, LIVE, LIVE]
        assert (memory.mode, cluster.read_mode(), cache.proxy().mode().get(timeout=5)) == (LIVE, LIVE, LIVE)
    finally:
        system.stop(5)
        store.close()
        client.close()
