"""The mode supervisor actor: which mode is in force, and which feeds this node reads in it."""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gevent
import msgspec
import structlog
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool
from pykka import ActorDeadError, Timeout

from actors.aggregator import LEASE_MS
from actors.exchange import ExchangeActor
from actors.messages import FollowMode, Learn
from actors.runtime import (
    ActorSystem,
    Address,
    Backoff,
    ChildSpec,
    GeventActor,
    MailboxSpec,
    Overflow,
    UnknownPathError,
)
from marketflow.domain.mode import Mode
from marketflow.domain.view import Flush
from marketflow.errors import Unavailable
from marketflow.ports import Clock, Cluster, Feed, FeedStatus, Meters, PriceCache, Switched

RETRY = Backoff(initial=0.2, maximum=2.0, jitter=0.5)
ATTEND_SECONDS = 1.0
"""How often leases are renewed and the other nodes are told of this one."""
CLOSE_SECONDS = 2.0
FEEDS_AT_A_TIME = 16
"""How many feeds are opened or closed side by side; each takes a connection to Redis meanwhile."""
PEERS_SECONDS = 2.0
"""How long a switch waits for the other nodes to follow."""


class NodeStatus(msgspec.Struct, array_like=True):
    """What a node tells the others of itself: its mode, the feeds that it reads, its server and what it counted."""

    mode: Mode
    feeds: dict[str, FeedStatus]
    server: str
    counts: bytes


class ModeMemory:
    """What outlives a failure of the actor: the mode, and the feeds that this node has the lease of."""

    def __init__(self, mode: Mode) -> None:
        self.mode: Mode = mode
        self.joined = False
        """Whether the other nodes, if any, have been asked for their mode."""
        self.closed = False
        """Whether the node is being stopped: no feed is opened any more."""
        self.owned: set[str] = set()
        self.last_feeds: list[str] = []
        """The feeds whose leases are to be given back when the node is stopped."""
        self.peers: dict[str, NodeStatus] = {}
        self.leased: dict[str, int] = {}
        """When each feed's lease was last known to be ours (monotonic ms); the aggregator looks at it too."""
        self.had_peers = False
        self.untold = False
        """Whether a switch could not be written to Redis yet: then its mode counts, and not what Redis says."""


class ModeSupervisorActor(GeventActor):
    """live | test as a state machine: feeds of the old mode are closed before queries see the new one."""

    mailbox = MailboxSpec(bound=64, overflow=Overflow.HOLD)

    def __init__(
        self,
        memory: ModeMemory,
        system: ActorSystem,
        feeds_path: str,
        exchanges: Sequence[str],
        make_feed: Callable[[Mode, str], Feed],
        cluster: Cluster,
        prices: PriceCache,
        *,
        symbols: Sequence[str],
        retention: int,
        server: str,
        only_worker: bool,
        cache: Address[Any],
        aggregator: Address[Any],
        router: Address[Any],
        room: Event,
        clock: Clock,
        meters: Meters,
    ) -> None:
        super().__init__()
        self._memory = memory
        self._system = system
        self._feeds_path = feeds_path
        self._exchanges = exchanges
        self._make_feed = make_feed
        self._cluster = cluster
        self._prices = prices
        self._symbols = symbols
        self._retention = retention
        self._server = server
        self._only_worker = only_worker
        self._cache = cache
        self._cache_proxy = cache.proxy()
        self._aggregator_proxy = aggregator.proxy()
        self._router = router
        self._room = room
        self._clock = clock
        self._meters = meters
        self._changing = BoundedSemaphore()  # the feeds are changed by one at a time: a switch, or the lease round
        self._log = structlog.get_logger("mode_supervisor").bind(actor="mode_supervisor")

    def on_start(self) -> None:
        """Take up the leases, and listen to the other nodes."""
        self.spawn(self._attend_for_ever)
        self.spawn(self._listen_for_ever)

    def on_receive(self, _message: FollowMode) -> None:
        """Follow the mode of all nodes: the one in Redis now, as the message may come late."""
        try:
            mode = self._cluster.read_mode()
        except Unavailable:
            return  # it is told again when Redis is back
        if mode not in (None, self._memory.mode) and not self._memory.untold:
            self._put_in_force(mode)

    # --- called through a proxy ---

    def switch(self, mode: Mode) -> Switched:
        """Put a mode in force on every node; return once it is."""
        previous = self._memory.mode
        if mode == previous:
            return Switched(mode, previous, changed=False)
        self._memory.joined = True
        self._memory.untold = True
        try:
            self._tell_mode(mode)  # first, so that what is heard late of the old mode is not followed
        except Unavailable as error:
            self._log.warning("the other nodes cannot be told of the switch yet", mode=mode, reason=str(error))
        self._put_in_force(mode)
        if not self._memory.untold:
            self._wait_for_peers(mode)
        return Switched(mode, previous, changed=True)

    def feeds(self) -> dict[str, FeedStatus]:
        """Return how each feed does, this node's and the other nodes'."""
        known = {exchange: FeedStatus("connecting", None) for exchange in self._exchanges}
        for peer in self._memory.peers.values():
            if peer.mode == self._memory.mode:
                known.update(peer.feeds)
        known.update(self._own_feeds())
        return {exchange: known[exchange] for exchange in self._exchanges}

    def close_feeds(self) -> None:
        """Stop reading, and hand on what was read; the leases stay, for `give_back`, until that is journalled."""
        with self._changing:
            self._memory.closed = True
            self._memory.last_feeds = sorted(self._memory.owned)
            self._each(self._close_feed, self._memory.last_feeds)
            self._memory.owned.clear()

    # --- the mode ---

    def _put_in_force(self, mode: Mode) -> None:
        with self._changing:
            owned = sorted(self._memory.owned)
            self._close(owned)
            self._memory.mode = mode
            self._cache_proxy.set_mode(mode).get(timeout=CLOSE_SECONDS)
            self._log.info("mode in force", mode=mode)
            try:
                self._take_leases()
                self._announce()
            except Unavailable as error:
                self._log.warning("leases cannot be taken; this node goes on with its feeds", reason=str(error))
                for exchange in owned:
                    self._open_feed(exchange)

    def _tell_mode(self, mode: Mode) -> None:
        self._cluster.write_mode(mode)
        self._memory.untold = False

    def _wait_for_peers(self, mode: Mode) -> None:
        deadline = self._clock.monotonic() + PEERS_SECONDS * 1000
        try:
            while any(peer.mode != mode for peer in self._announce().values()):
                if self._clock.monotonic() > deadline:
                    self._log.warning("not every node has followed in time", mode=mode)
                    return
                gevent.sleep(0.02)
        except Unavailable as error:
            self._log.warning("it is not known whether every node has followed", mode=mode, reason=str(error))

    # --- the feeds of this node ---

    def _attend_for_ever(self) -> None:
        attempt = 0
        while True:
            try:
                if not self._memory.joined:
                    self._join()
                if self._memory.untold:
                    self._tell_mode(self._memory.mode)
                with self._changing:
                    self._take_leases()
                self._announce()
                attempt = 0
                gevent.sleep(ATTEND_SECONDS)
            except Unavailable as error:
                if attempt == 0:
                    self._log.warning("leases cannot be renewed; feeds are kept", reason=str(error))
                attempt += 1
                with self._changing:
                    self._keep_feeds()
                gevent.sleep(RETRY.delay(attempt, random.random()))  # noqa: S311  # jitter needs no secrecy

    def _join(self) -> None:
        """Follow the nodes that are there already; the first node brings its own mode."""
        peers = self._announce()
        mode = self._cluster.read_mode()
        if peers and mode is not None:
            if mode != self._memory.mode:
                self._memory.mode = mode
                self._cache_proxy.set_mode(mode).get(timeout=CLOSE_SECONDS)
        else:
            self._cluster.write_mode(self._memory.mode)
        self._memory.joined = True

    def _take_leases(self) -> None:
        """Renew what is owned, take what is free, and start and stop the feeds accordingly."""
        try:
            self._each(self._attend_one, self._exchanges)
        except Unavailable:
            self._keep_feeds()
            raise

    def _attend_one(self, exchange: str) -> None:
        asked = self._clock.monotonic()
        if self._cluster.lease(self._memory.mode, exchange):
            self._memory.leased[exchange] = asked
            self._open_feed(exchange)
        elif exchange in self._memory.owned:
            self._log.warning("another node reads this feed now", exchange=exchange)
            self._close([exchange])
            self._aggregator_proxy.abandon(self._memory.mode, exchange).get(timeout=CLOSE_SECONDS)

    def _keep_feeds(self) -> None:
        """Without Redis, whoever owns a feed keeps it, and a node that is alone owns them all."""
        alone = self._only_worker and not self._memory.peers
        kept = self._exchanges if alone else sorted(self._memory.owned)
        for exchange in kept:
            self._memory.leased[exchange] = self._clock.monotonic()  # nobody else can take it either
        self._each(self._open_feed, kept)

    def _each(self, attend: Callable[[str], object], exchanges: Sequence[str]) -> None:
        """Attend to some feeds at a time; when all are done, raise the first of what was raised."""
        pool = Pool(FEEDS_AT_A_TIME)
        begun = [pool.spawn(attend, exchange) for exchange in exchanges]
        pool.join()
        for greenlet in begun:
            greenlet.get()

    def _open_feed(self, exchange: str) -> None:
        if self._memory.closed:
            return
        path = f"{self._feeds_path}/{exchange}"
        if exchange in self._memory.owned:
            try:
                self._system.address(path)
            except UnknownPathError:
                pass  # a restart of this actor's siblings has swept it away
            else:
                return
        mode = self._memory.mode
        shared = self._memory.had_peers or not self._only_worker  # another node may have read this feed until now
        if shared:
            self._reread(mode, exchange)
        self._aggregator_proxy.adopt(exchange, afresh=shared).get(timeout=CLOSE_SECONDS)
        self._memory.owned.add(exchange)
        self._system.add_child(
            self._feeds_path,
            ChildSpec(
                exchange,
                ExchangeActor,
                args=(
                    exchange,
                    mode,
                    self._make_feed(mode, exchange),
                    self._router,
                    self._room,
                    partial(_is_leased, self._memory, self._clock, exchange),
                    self._clock,
                    self._meters,
                ),
            ),
        )

    def _close(self, exchanges: Sequence[str]) -> None:
        self._each(self._close_one, exchanges)
        for exchange in exchanges:
            self._memory.owned.discard(exchange)

    def _close_one(self, exchange: str) -> None:
        if self._close_feed(exchange):
            self._give_lease(exchange)

    def _close_feed(self, exchange: str) -> bool:
        """Stop a feed's actor; tell whether there was one."""
        path = f"{self._feeds_path}/{exchange}"
        try:
            address = self._system.address(path)
        except UnknownPathError:
            return False
        try:
            closed = address.proxy().close(CLOSE_SECONDS).get(timeout=2 * CLOSE_SECONDS)
        except (Timeout, ActorDeadError):
            closed = False
        if not closed:
            self._log.warning("feed not closed in time", exchange=exchange)
        self._system.remove_child(path, timeout=CLOSE_SECONDS)
        return True

    def _give_lease(self, exchange: str) -> None:
        try:
            self._cluster.release(self._memory.mode, exchange)
        except Unavailable as error:
            self._log.info("lease not released; it will lapse", exchange=exchange, reason=str(error))

    def _own_feeds(self) -> dict[str, FeedStatus]:
        asked = {}
        for exchange in self._memory.owned:
            try:
                asked[exchange] = self._system.address(f"{self._feeds_path}/{exchange}").proxy().status()
            except UnknownPathError:
                continue
        return {exchange: status.get(timeout=CLOSE_SECONDS) for exchange, status in asked.items()}

    # --- the other nodes ---

    def _announce(self) -> Mapping[str, NodeStatus]:
        status = NodeStatus(self._memory.mode, self._own_feeds(), self._server, self._meters.snapshot())
        others = self._cluster.announce(msgspec.msgpack.encode(status))
        peers = {node: peer for node, told in others.items() if (peer := _status_of(told)) is not None}
        self._meters.learn(peer.counts for peer in peers.values() if peer.server == self._server)
        self._memory.peers = peers
        self._memory.had_peers |= bool(peers)
        return peers

    def _listen_for_ever(self) -> None:
        attempt = 0
        while True:
            try:
                self._cluster.listen(self._hear_flush, self._hear_mode, self._hear_peers)
            except Unavailable:
                attempt += 1
            gevent.sleep(RETRY.delay(min(attempt, 10), random.random()))  # noqa: S311  # jitter needs no secrecy

    def _hear_flush(self, mode: Mode, flush: Flush) -> None:
        self._cache.tell(Learn(mode, flush))

    def _hear_mode(self, _mode: Mode) -> None:
        self.actor_ref.tell(FollowMode())

    def _hear_peers(self) -> None:
        """What nodes wrote before they heard of each other was not told."""
        mode = self._memory.mode
        self._cache.tell(Learn(mode, Flush(self._prices.read_latest(mode, self._symbols), {})))
        for exchange in self._exchanges:
            if exchange not in self._memory.owned:
                self._reread(mode, exchange)

    def _reread(self, mode: Mode, exchange: str) -> None:
        """Let the cache learn what Redis has of a feed; by symbol, so that none of the pieces takes long."""
        since = self._clock.now() - self._retention
        for symbol, series in self._prices.read_series(mode, exchange, since).items():
            self._cache.tell(Learn(mode, Flush({}, {exchange: {symbol: series}})))


def give_back(memory: ModeMemory, cluster: Cluster) -> None:
    """Let other nodes take over at once, when all that this one received is journalled. Raises Unavailable; they will
    notice by themselves then."""
    for exchange in memory.last_feeds:
        cluster.release(memory.mode, exchange)
    cluster.withdraw()


def _is_leased(memory: ModeMemory, clock: Clock, exchange: str) -> bool:
    """Tell whether the lease of a feed was renewed, or cannot have lapsed."""
    return clock.monotonic() - memory.leased.get(exchange, 0) < LEASE_MS


def _status_of(told: bytes) -> NodeStatus | None:
    """What a node tells; None where it is of another version, which tells it in another way."""
    try:
        return msgspec.msgpack.decode(told, type=NodeStatus)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
