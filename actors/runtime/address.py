"""Where to send: a ref and a proxy that stay valid while the actor behind them is restarted."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pykka import ActorDeadError, ActorProxy, ActorRef, CallableProxy
from pykka.messages import ProxyGetAttr

from actors.runtime.errors import MailboxFullError
from actors.runtime.future import GeventFuture
from actors.runtime.mailbox import Envelope

if TYPE_CHECKING:
    from actors.runtime.actor import GeventActor
    from actors.runtime.cell import Cell

A = TypeVar("A", bound="GeventActor")

_UNKNOWN = object()


class Address(ActorRef[A]):
    """A `pykka.ActorRef` to a place in the tree rather than to one life of an actor.

    While the actor is restarted, messages wait in the mailbox and askers for their answer. Once it has ended
    for good, `tell` and the futures of `ask` raise `pykka.ActorDeadError`.
    """

    def __init__(self, cell: Cell) -> None:
        # Not ActorRef's own __init__: it wants the one actor that it stands for.
        self.cell = cell
        self.path = cell.path
        self.actor_class = cast("type[A]", cell.spec.actor_class)
        self.actor_urn = cell.path
        self._mailbox = cell.mailbox
        # One call less on the hot path than the method below, which says what it does.
        self.tell = cell.mailbox.put  # type: ignore[method-assign]  # the same signature, bound
        self._put_control = cell.mailbox.put_control

    def __str__(self) -> str:
        return f"{self.actor_class.__name__} ({self.path})"

    def __repr__(self) -> str:
        return f"<Address of {self}>"

    @property
    def depth(self) -> int:
        """How many messages wait in the data lane."""
        return len(self._mailbox)

    def is_alive(self) -> bool:
        """True until the actor has ended for good; also before its start and while it is restarted."""
        return not self._mailbox.closed

    def tell(self, message: Any, timeout: float | None = None) -> None:
        """Send on the data lane; held for at most `timeout` seconds if a holding mailbox is full.

        Raises `ActorDeadError`, `pykka.Timeout` if held too long, `MailboxFullError` if rejected.
        """
        self._mailbox.put(message, timeout)

    def tell_control(self, message: Any) -> None:
        """Send on the control lane: handled before all data, never held. Raises `ActorDeadError`."""
        self._put_control(Envelope(message))

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None, control: bool = True) -> Any:
        """Send, and wait for the answer (or return its future, with `block=False`).

        Asks go on the control lane; with `control=False` this one queues with the data, and `timeout` covers
        being held as well. Raises what the actor raised, `pykka.Timeout`, `ActorDeadError` or
        `MailboxFullError`: directly or, with `block=False`, from the future.
        """
        future: GeventFuture[Any] = GeventFuture()
        future.answerer = self._mailbox
        try:
            if control:
                self._put_control(Envelope(message, future))
            elif timeout is None:
                self.tell(Envelope(message, future))
            else:
                deadline = time.monotonic() + timeout
                self.tell(Envelope(message, future), timeout)
                timeout = deadline - time.monotonic()
        except (ActorDeadError, MailboxFullError):
            future.set_exception()
        return future.get(timeout=timeout) if block else future

    def proxy(self) -> AddressProxy[A]:
        """A proxy that survives restarts, may be made before the start, and is cheap; see `pykka.ActorProxy`."""
        return AddressProxy(self)

    def peek(self, attr_path: tuple[str, ...]) -> Any:
        """What the attribute is, seen from outside: to know whether to call, to traverse or to ask for it.

        Raises `AttributeError` if neither the class nor the running actor has it.
        """
        found = functools.reduce(_class_attribute, attr_path, self.actor_class)
        if found is not _UNKNOWN:
            return found
        actor = self.cell.actor
        return None if actor is None else functools.reduce(getattr, attr_path, actor)


def _class_attribute(owner: Any, name: str) -> Any:
    return getattr(owner, name, _UNKNOWN)


class AddressProxy(ActorProxy[A]):
    """A `pykka.ActorProxy` by address: it never looks into one life of the actor for longer than a moment."""

    def __init__(self, address: Address[A], attr_path: tuple[str, ...] = ()) -> None:
        # Not ActorProxy's own __init__: it introspects a live actor (over 0.1 ms) and holds it strongly.
        self.actor_ref = address
        self._actor = address  # type: ignore[assignment]  # what Pykka compares and hashes proxies by
        self._attr_path = attr_path
        self._known_attrs = {}

    def __getattr__(self, name: str) -> Any:
        """A callable proxy, a proxy of what is traversable, or a future of the attribute's value."""
        if name.startswith("_"):
            raise AttributeError(f"{self!r} gives no access to {name!r}")
        address = self.__dict__["actor_ref"]
        attr_path = (*self._attr_path, name)
        attribute = address.peek(attr_path)
        if callable(attribute):
            # Kept in __dict__, so that the next look-up does not come here.
            self.__dict__[name] = CallableProxy(actor_ref=address, attr_path=attr_path)
            return self.__dict__[name]
        if getattr(attribute, "_pykka_traversable", False) or getattr(attribute, "pykka_traversable", False):
            self.__dict__[name] = AddressProxy(address, attr_path)
            return self.__dict__[name]
        return address.ask(ProxyGetAttr(attr_path), block=False)
