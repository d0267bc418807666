"""The exchange actor: reads one feed, cuts it into batches of whole lines, and reconnects for ever."""

import random
from collections.abc import Callable
from typing import Any, Literal

import gevent
import structlog
from gevent.event import Event

from actors.messages import Batch
from actors.runtime import Address, Backoff, GeventActor, MailboxSpec, Overflow
from marketflow.domain.feed import Framer, pieces
from marketflow.domain.mode import Mode
from marketflow.errors import Unavailable
from marketflow.ports import Clock, Feed, FeedConnection, FeedStatus, Meters

RECONNECT_SOON = Backoff(initial=0.1, maximum=0.8, jitter=0.5)
"""In the first half minute of an outage, which is the time that a restart takes."""
RECONNECT = Backoff(initial=1.0, maximum=8.0, jitter=0.5)
SOON_MS = 30_000
UNSURE_SECONDS = 0.1
STALE_MS = 10_000
"""A connected feed that has sent nothing for so long is reported as stale."""


class ExchangeActor(GeventActor):
    """One feed in one mode. Bytes read are never dropped: when the router is full the socket waits."""

    mailbox = MailboxSpec(bound=16, overflow=Overflow.HOLD)

    def __init__(
        self,
        exchange: str,
        mode: Mode,
        feed: Feed,
        router: Address[Any],
        room: Event,
        leased: Callable[[], bool],
        clock: Clock,
        meters: Meters,
    ) -> None:
        """Read a feed for a router, while there is `room`; connect only when the feed is certainly `leased`."""
        super().__init__()
        self._exchange = exchange
        self._mode: Mode = mode
        self._feed = feed
        self._router = router
        self._room = room
        self._leased = leased
        self._clock = clock
        self._meters = meters
        self._connection: FeedConnection | None = None
        self._closing = Event()
        self._closed = Event()
        self._order = 0
        self._last_batch: int | None = None
        self._log = structlog.get_logger("exchange").bind(actor=exchange, exchange=exchange, mode=mode)

    def on_start(self) -> None:
        """Begin to read, beside the mailbox: control messages never wait for the feed."""
        self.spawn(self._read_for_ever)

    def on_stop(self) -> None:
        """Close what a kill left open."""
        if self._connection is not None:
            self._connection.close()

    def close(self, timeout: float) -> bool:
        """Stop reading, hand on what was read, and tell whether that was done within `timeout` seconds."""
        self._closing.set()
        if self._connection is not None:
            self._connection.close()
        return bool(self._closed.wait(timeout))

    def status(self) -> FeedStatus:
        """Return how the feed does."""
        age = None if self._last_batch is None else self._clock.monotonic() - self._last_batch
        state: Literal["ok", "connecting", "stale"] = "connecting"
        if self._connection is not None:
            state = "stale" if age is not None and age > STALE_MS else "ok"
        return FeedStatus(state, age)

    def _read_for_ever(self) -> None:
        attempt = 0
        connected = self._clock.monotonic()
        while not self._closing.is_set():
            if not self._leased():  # this node stood still; who reads the feed now must not be disturbed
                self._closing.wait(UNSURE_SECONDS)
                continue
            received = False
            try:
                connection = self._feed.connect()
                self._connection = connection
                self._log.info("connected")
                received = self._read(connection)
                reason = "closed by the exchange"
            except Unavailable as error:
                reason = str(error)
            finally:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
            if self._closing.is_set():
                break
            attempt = 0 if received else attempt + 1
            if received:
                connected = self._clock.monotonic()
            backoff = RECONNECT_SOON if self._clock.monotonic() - connected < SOON_MS else RECONNECT
            delay = backoff.delay(attempt, random.random())  # noqa: S311  # jitter needs no secrecy
            self._log.warning("reconnecting", reason=reason, attempt=attempt, delay_ms=round(delay * 1000))
            self._closing.wait(delay)
        self._closed.set()

    def _read(self, connection: FeedConnection) -> bool:
        """Read until the connection ends; tell whether it brought anything."""
        framer = Framer()
        too_long = 0
        received = False
        while chunk := connection.read():
            received = True
            lines = framer.feed(chunk)
            self._last_batch = self._clock.monotonic()
            if lines:
                self._send(lines)
            if framer.too_long != too_long:
                self._meters.received(self._exchange, framer.too_long - too_long)
                self._meters.rejected(self._exchange, "line_too_long", framer.too_long - too_long)
                too_long = framer.too_long
            if not self._room.is_set():
                self._log.error("reading pauses: nothing more can be kept")
                gevent.wait((self._room, self._closing), count=1)
            gevent.sleep(0)  # a socket that always has more would keep all other greenlets waiting
        return received

    def _send(self, lines: bytes) -> None:
        now = self._clock.now()
        waiting = lines.count(b"\n")
        self._meters.received(self._exchange, waiting)
        try:
            for count, piece in pieces(lines, waiting):
                # By the time of day, so that it also grows across restarts.
                self._order = max(self._order + 1, now * 1000)
                self._router.tell(Batch(self._mode, self._exchange, self._order, now, count, piece))
                waiting -= count
        except BaseException:
            self._meters.failed(self._exchange, waiting)
            raise
