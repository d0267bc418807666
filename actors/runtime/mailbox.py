"""The mailbox: a bounded data lane with an overflow policy, and a control lane that overtakes it."""

from __future__ import annotations

import dataclasses
import enum
from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import gevent
from gevent.hub import Waiter
from pykka import ActorDeadError, Timeout
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr

from actors.runtime.conflate import ConflatingQueue
from actors.runtime.errors import MailboxFullError

if TYPE_CHECKING:
    from actors.runtime.future import GeventFuture

FAIR_AFTER = 64
"""So many control messages in a row, and one turn of data follows: queries overtake data but cannot starve it."""


class Overflow(enum.Enum):
    """What a full mailbox does with one more message."""

    HOLD = "hold"
    """Hold the sending greenlet until there is room."""
    REJECT = "reject"
    """Raise `MailboxFullError` in the sender."""
    DROP_OLDEST = "drop_oldest"
    """Make room: the oldest waiting message is lost."""
    CONFLATE = "conflate"
    """A message replaces the waiting one of its key, in its place; a full mailbox holds senders of new keys."""


@dataclasses.dataclass(frozen=True, slots=True)
class MailboxSpec:
    """The mailbox an actor class wants.

    `hold_timeout` (seconds, None: for ever) bounds how long a sender is held. `conflate_key` gives a message's
    key, or None for one that is never replaced. With `drain`, all waiting messages are handled as one list.
    """

    bound: int = 64
    overflow: Overflow = Overflow.HOLD
    hold_timeout: float | None = None
    drain: bool = False
    conflate_key: Callable[[Any], Hashable | None] | None = None

    def __post_init__(self) -> None:
        if self.bound < 1:
            raise ValueError(f"a mailbox has a bound of at least 1, got {self.bound}")
        if (self.overflow is Overflow.CONFLATE) != (self.conflate_key is not None):
            raise ValueError("conflate_key goes with Overflow.CONFLATE, and only with it")


class Envelope:
    """A message that is not a plain told one: it waits for a reply, or is control."""

    __slots__ = ("message", "reply_to")

    def __init__(self, message: Any, reply_to: GeventFuture[Any] | None = None) -> None:
        self.message = message
        self.reply_to = reply_to


class Internal:
    """A message of the runtime's own: none that anyone would miss as a dead letter."""


class Batch(list[Any]):
    """The plain messages that a draining actor handles as one list."""


SINGLE = frozenset((Envelope, ProxyCall, ProxyGetAttr, ProxySetAttr))
"""What waits in the data lane but is never part of a batch, nor conflated."""

EMPTY = object()
"""What `Mailbox.take` returns when nothing waits."""


class _Held:
    """A sender that waits for room, and its message."""

    __slots__ = ("admitted", "message", "waiter")

    def __init__(self, message: Any) -> None:
        self.message = message
        self.admitted: bool | None = None
        self.waiter: Waiter[None] = Waiter()

    def release(self, *, admitted: bool) -> None:
        """Let the sender go on, with its message in the mailbox or refused."""
        self.admitted = admitted
        self.waiter.hub.loop.run_callback(self.waiter.switch, None)


class Mailbox:
    """One consumer, any number of senders, all greenlets of one thread. See `MailboxSpec`."""

    def __init__(self, spec: MailboxSpec, path: str, discard: Callable[[Any, str], None]) -> None:
        self.spec = spec
        self.consumer: Any = None
        """The greenlet that handles the messages: what it sends to itself is never held."""
        self.closed = False
        self._path = path
        self._discard = discard
        self.control: deque[Any] = deque()
        self.data: deque[Any] | ConflatingQueue = deque()
        self.held: deque[_Held] = deque()
        self._bound = spec.bound
        """Where `put` leaves its fast path; -1, for always, once closed or if it conflates."""
        if spec.conflate_key is not None:
            self.data = ConflatingQueue(_key_of_plain(spec.conflate_key))
            self._bound = -1
        self._idle: Waiter[None] | None = None
        self._streak = 0

    def __len__(self) -> int:
        return len(self.data)

    # -- senders

    def put(self, message: Any, timeout: float | None = None) -> None:
        """Send on the data lane; `timeout` seconds bound how long a full mailbox may hold the sender.

        Raises `ActorDeadError` if closed, `pykka.Timeout` if held too long, `MailboxFullError` if rejected.
        """
        data = self.data
        if len(data) >= self._bound:
            self._overflow(message, timeout)
            return
        data.append(message)
        if self._idle is not None:
            self._wake()

    def put_control(self, item: Any) -> None:
        """Send on the control lane, which has no bound. Raises `ActorDeadError` if closed."""
        if self.closed:
            self._dead(item, "dead")
            raise ActorDeadError(f"{self._path} is stopped")
        self.control.append(item)
        if self._idle is not None:
            self._wake()

    def put_last(self, item: Any) -> None:
        """Put at the end of the data lane, whatever the bound: for the consumer's own marks."""
        self.data.append(item)
        if self._idle is not None:
            self._wake()

    def _overflow(self, message: Any, timeout: float | None) -> None:
        data = self.data
        overflow = self.spec.overflow
        if self.closed:
            self._dead(message, "dead")
            raise ActorDeadError(f"{self._path} is stopped")
        if overflow is Overflow.REJECT:
            self._dead(message, "rejected")
            raise MailboxFullError(f"{self._path} has {len(data)} messages waiting")
        if overflow is Overflow.DROP_OLDEST:
            oldest = data.popleft()
            if type(oldest) is Envelope:
                fail_reply(oldest, MailboxFullError(f"{self._path} dropped the message for a newer one"))
            self._dead(oldest, "dropped")
            data.append(message)
        elif self._has_room_for(message) or gevent.getcurrent() is self.consumer:
            data.append(message)
            self._wake()
        else:
            self._hold(message, timeout)

    def _has_room_for(self, message: Any) -> bool:
        data = self.data
        return len(data) < self.spec.bound or (isinstance(data, ConflatingQueue) and data.has(message))

    def _hold(self, message: Any, timeout: float | None) -> None:
        limits = [limit for limit in (timeout, self.spec.hold_timeout) if limit is not None]
        limit = min(limits, default=None)
        if limit is not None and limit <= 0:
            raise Timeout(f"{self._path} is full")
        held = _Held(message)
        self.held.append(held)
        try:
            with gevent.Timeout(limit) as timer:
                held.waiter.get()
        except BaseException as error:
            if held.admitted is None:
                self.held.remove(held)
                if error is timer:
                    raise Timeout(f"{self._path} was full for {limit} seconds") from None
                raise
            if error is not timer:
                # A kill that came too late: the message is in. The sender must know that, and die afterwards.
                _throw_later(error)
        if not held.admitted:
            self._dead(message, "dead")
            raise ActorDeadError(f"{self._path} stopped before there was room")

    def _dead(self, item: Any, reason: str) -> None:
        self._discard(item.message if type(item) is Envelope else item, reason)

    def admit(self) -> None:
        """Let held senders in, oldest first, while there is room."""
        while self.held and len(self.data) < self.spec.bound:
            held = self.held.popleft()
            self.data.append(held.message)
            held.release(admitted=True)

    def _wake(self) -> None:
        waiter = self._idle
        if waiter is not None:
            self._idle = None
            waiter.hub.loop.run_callback(waiter.switch, None)

    # -- the consumer

    def take(self) -> Any:
        """The next item, control first, or `EMPTY`. A `Batch` if the spec drains."""
        if self.control and (self._streak < FAIR_AFTER or not self.data):
            self._streak += 1
            return self.control.popleft()
        self._streak = 0
        if not self.data:
            return EMPTY
        item = self._take_batch() if self.spec.drain else self.data.popleft()
        if self.held:
            self.admit()
        return item

    def wait(self) -> None:
        """Wait until there is something to take, or for `interrupt`; only when `take` has just found nothing."""
        waiter: Waiter[None] = Waiter()
        self._idle = waiter
        try:
            waiter.get()
        finally:
            self._idle = None

    def _take_batch(self) -> Any:
        data = self.data
        if SINGLE.isdisjoint(map(type, data)):
            batch = Batch(data)
            data.clear()
            return batch
        first = data.popleft()
        if type(first) in SINGLE:
            return first
        batch = Batch((first,))
        while type(next(iter(data))) not in SINGLE:
            batch.append(data.popleft())
        return batch

    def interrupt(self) -> None:
        """Let the consumer look around, if it waits."""
        self._wake()

    @property
    def quiet(self) -> bool:
        """Nothing waits in the data lane, nor to get into it."""
        return not self.data and not self.held

    def close(self) -> None:
        """Refuse what comes; fail what waits. Askers and held senders get `ActorDeadError`. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._bound = -1
        left = [*self.control, *self.data]
        self.control.clear()
        self.data.clear()
        for item in left:
            if type(item) is Envelope:
                fail_reply(item, ActorDeadError(f"{self._path} stopped before handling the message"))
            self._dead(item, "stopped")
        while self.held:
            self.held.popleft().release(admitted=False)


def _throw_later(error: BaseException) -> None:
    """Raise in the current greenlet when it next lets others run."""
    current = gevent.getcurrent()
    if isinstance(current, gevent.Greenlet):
        gevent.Greenlet.kill(current, error, block=False)
    else:
        gevent.get_hub().loop.run_callback(current.throw, error)


def _key_of_plain(key: Callable[[Any], Hashable | None]) -> Callable[[Any], Hashable | None]:
    return lambda message: None if type(message) in SINGLE else key(message)


def fail_reply(envelope: Envelope, error: Exception) -> None:
    """Give `error` to whoever waits for the reply, if anyone does."""
    if envelope.reply_to is not None:
        envelope.reply_to.set_exception((type(error), error, None))
