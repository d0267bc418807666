"""The feeds of this node: whose lease it has, and the exchange actors that read them."""

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from typing import Any

import structlog
from gevent.event import Event
from gevent.pool import Pool
from pykka import ActorDeadError, Timeout

from actors.aggregator import LEASE_MS
from actors.exchange import ExchangeActor
from actors.runtime import ActorSystem, Address, ChildSpec, UnknownPathError
from marketflow.domain.mode import Mode
from marketflow.errors import Unavailable
from marketflow.ports import Clock, Cluster, Feed, FeedStatus, Meters

CLOSE_SECONDS = 2.0
AT_A_TIME = 16
"""How many feeds are opened or closed side by side; each takes a connection to Redis meanwhile."""


class FeedsMemory:
    """What outlives a failure of the mode supervisor: the feeds that this node has the lease of."""

    def __init__(self) -> None:
        self.closed = False
        """Whether the node is being stopped: no feed is opened any more."""
        self.owned: set[str] = set()
        self.last: list[str] = []
        """The feeds whose leases are to be given back when the node is stopped."""
        self.leased: dict[str, int] = {}
        """When each feed's lease was last known to be ours (monotonic ms); the aggregator looks at it too."""


class NodeFeeds:
    """Opens and closes exchange actors as leases come and go. Not for two greenlets at a time."""

    def __init__(
        self,
        memory: FeedsMemory,
        system: ActorSystem,
        path: str,
        exchanges: Sequence[str],
        make_feed: Callable[[Mode, str], Feed],
        cluster: Cluster,
        *,
        aggregator: Address[Any],
        router: Address[Any],
        room: Event,
        clock: Clock,
        meters: Meters,
    ) -> None:
        """Keep the exchange actors under `path`."""
        self._memory = memory
        self._system = system
        self._path = path
        self._exchanges = exchanges
        self._make_feed = make_feed
        self._cluster = cluster
        self._aggregator = aggregator.proxy()
        self._router = router
        self._room = room
        self._clock = clock
        self._meters = meters
        self._log = structlog.get_logger("feeds").bind(actor="mode_supervisor")

    @property
    def owned(self) -> frozenset[str]:
        """The feeds that this node reads."""
        return frozenset(self._memory.owned)

    def take(self, mode: Mode, reread: Callable[[str], None] | None) -> None:
        """Renew what is owned, take what is free, and start and stop the feeds accordingly. Raises Unavailable.

        `reread` is given where another node may have read a feed until now: it is called before the feed is opened.
        """
        self._each(partial(self._attend, mode, reread), self._exchanges)

    def take_share(self, mode: Mode, reread: Callable[[str], None] | None, nodes: int) -> None:
        """The same, but no more than this node's share of what so many nodes begin to read at the same time."""
        share = ceil(len(self._exchanges) / nodes)
        for exchange in self._exchanges:
            if exchange in self._memory.owned or len(self._memory.owned) < share:
                self._attend(mode, reread, exchange)

    def keep(self, mode: Mode, exchanges: Sequence[str], reread: Callable[[str], None] | None) -> None:
        """Read these feeds while nobody can be asked for their leases: nobody else can take them either."""
        for exchange in exchanges:
            self._memory.leased[exchange] = self._clock.monotonic()
        self._each(lambda exchange: self._open(mode, exchange, reread), exchanges)

    def close(self, mode: Mode) -> None:
        """Stop reading, and give the leases of a mode back."""
        self._close(mode, sorted(self._memory.owned))

    def close_for_ever(self) -> None:
        """Stop reading, and hand on what was read; the leases stay, for `give_back`, until that is journalled."""
        self._memory.closed = True
        self._memory.last = sorted(self._memory.owned)
        self._each(self._stop_reading, self._memory.last)
        self._memory.owned.clear()

    def statuses(self) -> dict[str, FeedStatus]:
        """Return how each feed of this node does."""
        asked = {}
        for exchange in self._memory.owned:
            try:
                asked[exchange] = self._system.address(f"{self._path}/{exchange}").proxy().status()
            except UnknownPathError:
                continue
        return {exchange: status.get(timeout=CLOSE_SECONDS) for exchange, status in asked.items()}

    def _each(self, attend: Callable[[str], object], exchanges: Sequence[str]) -> None:
        """Attend to some feeds at a time; when all are done, raise the first of what was raised."""
        pool = Pool(AT_A_TIME)
        begun = [pool.spawn(attend, exchange) for exchange in exchanges]
        pool.join()
        for greenlet in begun:
            greenlet.get()

    def _attend(self, mode: Mode, reread: Callable[[str], None] | None, exchange: str) -> None:
        asked = self._clock.monotonic()
        if self._cluster.lease(mode, exchange):
            self._memory.leased[exchange] = asked
            self._open(mode, exchange, reread)
        elif exchange in self._memory.owned:
            self._log.warning("another node reads this feed now", exchange=exchange)
            self._close(mode, [exchange])
            self._aggregator.abandon(mode, exchange).get(timeout=CLOSE_SECONDS)

    def _open(self, mode: Mode, exchange: str, reread: Callable[[str], None] | None) -> None:
        if self._memory.closed:
            return
        if exchange in self._memory.owned:
            try:
                self._system.address(f"{self._path}/{exchange}")
            except UnknownPathError:
                pass  # a restart of the mode supervisor's siblings has swept it away
            else:
                return
        if reread is not None:
            reread(exchange)
        self._aggregator.adopt(exchange, afresh=reread is not None).get(timeout=CLOSE_SECONDS)
        self._memory.owned.add(exchange)
        self._system.add_child(
            self._path,
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

    def _close(self, mode: Mode, exchanges: Sequence[str]) -> None:
        self._each(partial(self._close_one, mode), exchanges)
        self._memory.owned.difference_update(exchanges)

    def _close_one(self, mode: Mode, exchange: str) -> None:
        if self._stop_reading(exchange):
            try:
                self._cluster.release(mode, exchange)
            except Unavailable as error:
                self._log.info("lease not released; it will lapse", exchange=exchange, reason=str(error))

    def _stop_reading(self, exchange: str) -> bool:
        """Stop a feed's actor; tell whether there was one."""
        path = f"{self._path}/{exchange}"
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


def _is_leased(memory: FeedsMemory, clock: Clock, exchange: str) -> bool:
    """Tell whether the lease of a feed was renewed, or cannot have lapsed."""
    return clock.monotonic() - memory.leased.get(exchange, 0) < LEASE_MS


def give_back(memory: FeedsMemory, mode: Mode, cluster: Cluster) -> None:
    """Let other nodes take over at once, when all that this one received is journalled. Raises Unavailable; they will
    notice by themselves then."""
    for exchange in memory.last:
        cluster.release(mode, exchange)
    cluster.withdraw()
