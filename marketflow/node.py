"""The composition root: one node is the actor system of one process, wired to the world outside."""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import falcon
import structlog
from prometheus_client import CollectorRegistry

from actors.aggregator import AggregatorActor, AggregatorMemory
from actors.cache import CacheActor, CacheMemory
from actors.feeds import FeedsMemory, NodeFeeds, give_back
from actors.mode_supervisor import ModeMemory, ModeSupervisorActor
from actors.price_worker import PriceWorkerActor
from actors.router import RouterActor
from actors.runtime import (
    ActorSystem,
    Backoff,
    ChildSpec,
    CoordinatedShutdown,
    Failure,
    Phase,
    Strategy,
    SupervisorSpec,
)
from marketflow.adapters.clock import SystemClock
from marketflow.adapters.embedded import Endpoints
from marketflow.adapters.postgres import PostgresStore
from marketflow.adapters.redis import (
    RedisCluster,
    RedisPriceCache,
    RedisWindowJournal,
    check,
    connect,
    new_node_name,
)
from marketflow.adapters.tcp import TcpFeed
from marketflow.api.app import create_app
from marketflow.api.settings import ApiSettings
from marketflow.config import Exchange, Settings
from marketflow.domain.feed import Decoder
from marketflow.domain.mode import LIVE, TEST, Mode
from marketflow.domain.series import BLOCK_MS
from marketflow.errors import Unavailable
from marketflow.losses import LossCounter
from marketflow.market import NodeMarket
from marketflow.metrics import ActorCollector, NodeMeters
from marketflow.periods import Periods
from marketflow.ports import Feed
from marketflow.stored import StoredSummaries

PRICE_WORKERS = 4
"""Price workers of a node: enough that one which waits or is being restarted holds nobody up."""
HELD_MS = 300_000
"""The longest period that is answered from the series, unless windows are longer than half of it."""
START_SECONDS = 20.0
RESTART = Backoff(initial=0.05, maximum=0.5)
"""Queries wait for the cache while it is restarted: not longer than they wait for an answer."""


class Node:
    """One node: `start` it once, then `app` serves; `stop` it once."""

    def __init__(
        self,
        app: falcon.App[Any, Any],
        system: ActorSystem,
        given_up: "_GivenUp",
        checks: Sequence[Callable[[], None]],
        shutdown: CoordinatedShutdown,
        meters: NodeMeters,
    ) -> None:
        self.app = app
        self._system = system
        self._given_up = given_up
        self._checks = checks
        self._shutdown = shutdown
        self._meters = meters
        self._log = structlog.get_logger("node")

    def start(self) -> None:
        """Start all actors; servers that are away are waited for later. Raises StartupError when one refuses."""
        for check_server in self._checks:
            try:
                check_server()
            except Unavailable as error:
                self._log.warning("a server is away; starting without it", reason=str(error))
        self._system.start(timeout=START_SECONDS)
        self._log.info("node started")

    def on_give_up(self, callback: Callable[[], None]) -> None:
        """Call back once when supervision has given up."""
        self._given_up.callback = callback

    def stop(self) -> None:
        """Close the feeds, let what was received reach Redis and PostgreSQL, and stop all actors."""
        for report in self._shutdown.run():
            if report.late or report.errors:
                self._log.error("stopped uncleanly", phase=report.name, late=report.late, errors=report.errors)
        self._log.info("node stopped", **self._meters.totals())


class _GivenUp:
    """What is to be done when supervision gives up."""

    def __init__(self) -> None:
        self.callback: Callable[[], None] = lambda: None

    def __call__(self, failure: Failure) -> None:
        structlog.get_logger("node").critical("supervision gives up", reason=str(failure))
        self.callback()


def build(settings: Settings, endpoints: Endpoints) -> Node:
    """Put a node together. `settings.testgen.exchanges` must say where the exchanges of test mode are."""
    symbols = settings.symbols.allowed
    exchanges = tuple(exchange.name for exchange in settings.live.exchanges)
    interval, max_skew = settings.aggregation.interval, settings.aggregation.max_skew
    held = max(HELD_MS, 2 * interval)
    initial = settings.mode.initial

    clock = SystemClock()
    registry = CollectorRegistry()
    meters = NodeMeters(registry, exchanges, clock)
    redis = connect(endpoints.redis_url)
    cluster = RedisCluster(redis, new_node_name())
    prices = RedisPriceCache(redis, cluster, clock, series_retention=held + BLOCK_MS, max_skew=max_skew)
    store = PostgresStore(endpoints.postgres_dsn)
    feed_of = _feeds({LIVE: settings.live.exchanges, TEST: settings.testgen.exchanges})

    given_up = _GivenUp()
    # In the order of dependence: what fails takes with it only what comes after it.
    system = ActorSystem(SupervisorSpec("root", Strategy.REST_FOR_ONE, backoff=RESTART), given_up)
    cache = system.add_child(
        "root",
        ChildSpec(
            "cache",
            CacheActor,
            (CacheMemory(initial, clock.now()), prices, symbols, exchanges, held + BLOCK_MS, clock),
            shutdown=2.0,
            drain_before_stop=True,
        ),
    )
    mode_memory, feeds_memory = ModeMemory(initial, clock.monotonic()), FeedsMemory()
    windows = AggregatorMemory(interval)
    windows.leased = feeds_memory.leased
    aggregator = system.add_child(
        "root",
        ChildSpec(
            "aggregator",
            AggregatorActor,
            (
                windows,
                RedisWindowJournal(redis),
                store,
                settings.aggregation.lateness,
                max_skew,
                clock,
                meters,
            ),
            shutdown=3.5,
            drain_before_stop=True,
        ),
    )
    workers = [
        ChildSpec(
            f"worker{number}",
            PriceWorkerActor,
            (Decoder(symbols), max_skew, cache, aggregator, meters),
            shutdown=2.0,
            drain_before_stop=True,
        )
        for number in range(1, PRICE_WORKERS + 1)
    ]
    system.add_child("root", SupervisorSpec("workers", Strategy.ONE_FOR_ONE, workers))
    pool = [system.address(f"root/workers/{worker.name}") for worker in workers]
    router = system.add_child("root", ChildSpec("router", RouterActor, (pool,), shutdown=2.0, drain_before_stop=True))
    feeds = NodeFeeds(
        feeds_memory,
        system,
        "root/feeds",
        exchanges,
        feed_of,
        cluster,
        aggregator=aggregator,
        router=router,
        room=windows.room,
        clock=clock,
        meters=meters,
    )
    system.add_child(
        "root",
        ChildSpec(
            "mode_supervisor",
            ModeSupervisorActor,
            (mode_memory, feeds, exchanges, cluster, prices),
            {
                "symbols": symbols,
                "retention": held + BLOCK_MS,
                "server": f"{socket.gethostname()}-{os.getppid()}",  # the parent of all its workers
                "workers": settings.server.workers,
                "cache": cache,
                "clock": clock,
                "meters": meters,
            },
        ),
    )
    modes = system.address("root/mode_supervisor").proxy()
    system.add_child("root", SupervisorSpec("feeds", Strategy.ONE_FOR_ONE))
    system.subscribe(LossCounter(meters, aggregator.path))
    registry.register(ActorCollector(system.tree, system.dead_letters))

    stored = StoredSummaries(store, clock, shared=lambda: bool(cluster.peers))
    market = NodeMarket(
        system,
        store,
        Periods(system, stored, clock, interval=interval, held=held),
        meters,
        clock,
        registry,
        symbols=symbols,
        exchanges=exchanges,
        retention=settings.storage.retention,
    )
    app = create_app(market, _api_settings(settings, symbols, exchanges), registry)
    # Together with the last requests within gunicorn's grace; what PostgreSQL does not take in time is in the journal.
    shutdown = CoordinatedShutdown(
        [
            Phase("close feeds", 1.5, [lambda: modes.close_feeds().get()]),
            Phase("drain and flush", 4.0, [lambda: system.stop(timeout=4.0)]),
            Phase("give leases back", 0.5, [lambda: _give_back(feeds_memory, mode_memory, cluster)]),
            Phase("close clients", 0.5, [store.close, redis.close]),
        ]
    )
    return Node(app, system, given_up, [lambda: check(redis), store.check, store.migrate], shutdown, meters)


def _give_back(feeds: FeedsMemory, mode: ModeMemory, cluster: RedisCluster) -> None:
    try:
        give_back(feeds, mode.mode, cluster)
    except Unavailable as error:
        structlog.get_logger("node").info("the other nodes will notice that this one is gone", reason=str(error))


def _feeds(exchanges: Mapping[Mode, Sequence[Exchange]]) -> Callable[[Mode, str], Feed]:
    feeds = {
        (mode, exchange.name): TcpFeed(exchange.host, exchange.port)
        for mode, of_mode in exchanges.items()
        for exchange in of_mode
    }
    return lambda mode, exchange: feeds[mode, exchange]


def _api_settings(settings: Settings, symbols: tuple[str, ...], exchanges: tuple[str, ...]) -> ApiSettings:
    return ApiSettings(
        symbols=symbols,
        exchanges=exchanges,
        admin_token=settings.server.admin_token.get_secret_value(),
        request_log=settings.log.format if settings.log.level in {"debug", "info"} else "off",
    )
