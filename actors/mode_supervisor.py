"""The mode supervisor actor: which mode is in force, and which feeds this node reads in it."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gevent
import msgspec
import structlog
from gevent.lock import BoundedSemaphore

from actors.feeds import CLOSE_SECONDS, NodeFeeds
from actors.messages import FollowMode, Learn
from actors.runtime import Address, Backoff, GeventActor, MailboxSpec, Overflow
from marketflow.domain.mode import Mode
from marketflow.domain.view import Flush
from marketflow.errors import Unavailable
from marketflow.ports import Clock, Cluster, FeedStatus, Meters, PriceCache, Switched

RETRY = Backoff(initial=0.2, maximum=2.0, jitter=0.5)
ATTEND_SECONDS = 1.0
"""How often leases are renewed and the other nodes are told of this one."""
SHARE_MS = 2_000
"""For how long after a start or a switch a node leaves to the others their share of the feeds. Later it takes whatever
is free. A feed that is read stays where it is: to move it would lose what it sends meanwhile."""
PEERS_SECONDS = 2.0
"""How long a switch waits for the other nodes to follow."""


class NodeStatus(msgspec.Struct, array_like=True):
    """What a node tells the others of itself: its mode, the feeds that it reads, its server and what it counted."""

    mode: Mode
    feeds: dict[str, FeedStatus]
    server: str
    counts: bytes


class ModeMemory:
    """What outlives a failure of the actor: the mode, and what is known of the other nodes."""

    def __init__(self, mode: Mode, now: int) -> None:
        self.mode: Mode = mode
        self.mode_since = now
        """Since when this node is in that mode (monotonic ms)."""
        self.joined = False
        """Whether the other nodes, if any, have been asked for their mode."""
        self.peers: dict[str, NodeStatus] = {}
        self.had_peers = False
        self.untold: Mode | None = None
        """The mode of a switch that could not be written to Redis yet: it counts, and not what Redis says."""


class ModeSupervisorActor(GeventActor):
    """live | test as a state machine: feeds of the old mode are closed before queries see the new one."""

    mailbox = MailboxSpec(bound=64, overflow=Overflow.HOLD)

    def __init__(
        self,
        memory: ModeMemory,
        feeds: NodeFeeds,
        exchanges: Sequence[str],
        cluster: Cluster,
        prices: PriceCache,
        *,
        symbols: Sequence[str],
        retention: int,
        server: str,
        workers: int,
        cache: Address[Any],
        clock: Clock,
        meters: Meters,
    ) -> None:
        super().__init__()
        self._memory = memory
        self._feeds = feeds
        self._exchanges = exchanges
        self._cluster = cluster
        self._prices = prices
        self._symbols = symbols
        self._retention = retention
        self._server = server
        self._workers = workers
        self._cache = cache
        self._cache_proxy = cache.proxy()
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
        if mode not in (None, self._memory.mode) and self._memory.untold is None:
            self._put_in_force(mode)

    # --- called through a proxy ---

    def switch(self, mode: Mode) -> Switched:
        """Put a mode in force on every node; return once it is."""
        previous = self._memory.mode
        if mode == previous:
            return Switched(mode, previous, changed=False)
        self._memory.joined = True
        self._memory.untold = mode
        told = True
        try:
            self._tell_mode(mode)  # first, so that what is heard late of the old mode is not followed
        except Unavailable as error:
            told = False
            self._log.warning("the other nodes cannot be told of the switch yet", mode=mode, reason=str(error))
        self._put_in_force(mode)
        if told:
            self._wait_for_peers(mode)
        return Switched(mode, previous, changed=True)

    def feeds(self) -> dict[str, FeedStatus]:
        """Return how each feed does, this node's and the other nodes'."""
        known = {exchange: FeedStatus("connecting", None) for exchange in self._exchanges}
        known.update(self._feeds_of_peers())
        known.update(self._feeds.statuses())
        return {exchange: known[exchange] for exchange in self._exchanges}

    def free_feeds(self) -> list[str]:
        """Return the feeds that no node is known to read."""
        return sorted(set(self._exchanges) - self._feeds.owned - self._feeds_of_peers().keys())

    def close_feeds(self) -> None:
        """Stop reading, and hand on what was read, for good."""
        with self._changing:
            self._feeds.close_for_ever()

    # --- the mode ---

    def _put_in_force(self, mode: Mode) -> None:
        with self._changing:
            owned = sorted(self._feeds.owned)
            self._feeds.close(self._memory.mode)
            self._enter(mode)
            self._log.info("mode in force", mode=mode)
            try:
                self._take_leases()
                self._announce()
            except Unavailable as error:
                self._log.warning("leases cannot be taken; this node goes on with its feeds", reason=str(error))
                self._feeds.keep(mode, owned, self._reread_if_shared())

    def _enter(self, mode: Mode) -> None:
        self._memory.mode, self._memory.mode_since = mode, self._clock.monotonic()
        self._cache_proxy.set_mode(mode).get(timeout=CLOSE_SECONDS)

    def _tell_mode(self, mode: Mode) -> None:
        self._cluster.write_mode(mode)
        if self._memory.untold == mode:
            self._memory.untold = None

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
                if self._memory.untold is not None:
                    self._tell_mode(self._memory.untold)
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
                self._enter(mode)
        else:
            self._cluster.write_mode(self._memory.mode)
        self._memory.joined = True

    def _take_leases(self) -> None:
        memory, reread = self._memory, self._reread_if_shared()
        nodes = max(self._workers, 1 + len(memory.peers))
        try:
            if nodes > 1 and self._clock.monotonic() - memory.mode_since < SHARE_MS:
                self._feeds.take_share(memory.mode, reread, nodes)
            else:
                self._feeds.take(memory.mode, reread)
        except Unavailable:
            self._keep_feeds()
            raise

    def _keep_feeds(self) -> None:
        """Without Redis, whoever owns a feed keeps it, and a node that is alone owns them all."""
        alone = self._workers == 1 and not self._memory.peers
        kept = self._exchanges if alone else sorted(self._feeds.owned)
        self._feeds.keep(self._memory.mode, kept, self._reread_if_shared())

    # --- the other nodes ---

    def _announce(self) -> Mapping[str, NodeStatus]:
        status = NodeStatus(self._memory.mode, self._feeds.statuses(), self._server, self._meters.snapshot())
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
            if exchange not in self._feeds.owned:
                self._reread(exchange)

    def _reread_if_shared(self) -> Callable[[str], None] | None:
        """Return what lets the cache learn of a feed, where another node may have read it until now."""
        return self._reread if self._memory.had_peers or self._workers > 1 else None

    def _reread(self, exchange: str) -> None:
        """Let the cache learn what Redis has of a feed; by symbol, so that none of the pieces takes long."""
        mode = self._memory.mode
        since = self._clock.now() - self._retention
        for symbol, series in self._prices.read_series(mode, exchange, since).items():
            self._cache.tell(Learn(mode, Flush({}, {exchange: {symbol: series}})))

    def _feeds_of_peers(self) -> dict[str, FeedStatus]:
        of_mode = [peer.feeds for peer in self._memory.peers.values() if peer.mode == self._memory.mode]
        return {exchange: status for feeds in of_mode for exchange, status in feeds.items()}


def _status_of(told: bytes) -> NodeStatus | None:
    """What a node tells; None where it is of another version, which tells it in another way."""
    try:
        return msgspec.msgpack.decode(told, type=NodeStatus)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
