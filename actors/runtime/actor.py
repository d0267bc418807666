"""GeventActor: a Pykka actor that lives in a native greenlet."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, cast

import gevent
from pykka import ActorDeadError

from actors.runtime.cell import Cell, Terminated, Watch
from actors.runtime.events import Cause, Failure
from actors.runtime.mailbox import EMPTY, SINGLE, Batch, Envelope, Internal, MailboxSpec, fail_reply
from actors.runtime.pykka_hooks import HookedActor, StopRequest
from actors.runtime.specs import ChildSpec
from actors.runtime.timers import ChildFailure, ChildGreenlet, Timer

if TYPE_CHECKING:
    from actors.runtime.address import Address
    from actors.runtime.future import GeventFuture

TURN = 0.005
"""Seconds an actor may go from message to message before it lets other greenlets run."""

CHILDREN_GRACE = 1.0
"""Seconds an ending actor waits for its killed child greenlets."""

_NOT_PLAIN = SINGLE | {Batch}


class _StopMark(Internal):
    """Waits in the data lane behind what is to be handled before an ordered stop."""

    def __init__(self, actor: GeventActor) -> None:
        self.actor = actor


class GeventActor(HookedActor):
    """A Pykka actor on a greenlet: in a supervision tree by a `ChildSpec`, or alone by `start()`.

    Differs from Pykka: a failing `on_start` calls `on_failure`; `stop` overtakes what waits; any exception out
    of a told message, also a BaseException, fails this actor and no other; one raised to an asker is an answer.
    """

    mailbox: MailboxSpec = MailboxSpec()

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> Address[Self]:
        """Run alone, without a supervisor: as Pykka's `start`, with an address that dies with the actor."""
        return cast("Address[Self]", super().start(*args, **kwargs))

    @property
    def actor_ref(self) -> Address[Self]:
        """Its own address, which outlives it in a supervision tree."""
        return self._own_cell().address

    def _own_cell(self) -> Cell:
        if self._cell is None:
            self._cell = Cell(ChildSpec(type(self).__name__, type(self)))
        return self._cell

    def __str__(self) -> str:
        return f"{type(self).__name__} ({self.path})"

    @property
    def name(self) -> str:
        """The last step of the path."""
        return self._own_cell().name

    @property
    def path(self) -> str:
        """Where it is in the tree, as `root/cache`."""
        return self._own_cell().path

    def on_drain(self, messages: list[Any]) -> None:
        """Handle all plain messages that waited, oldest first; only with `MailboxSpec(drain=True)`."""
        raise NotImplementedError(f"{self} has a draining mailbox and no on_drain; got {len(messages)} messages")

    def stop(self) -> None:
        """Stop before the next message. A permanent actor is then started again by its supervisor."""
        self._running = False
        if gevent.getcurrent() is not self.actor_inbox.consumer:  # type: ignore[attr-defined]  # it is our Mailbox
            self._own_cell().mailbox.interrupt()

    # -- what an actor sets going

    def spawn(self, run: Callable[..., Any], *args: Any) -> ChildGreenlet:
        """Run a linked greenlet: killed when the actor ends, before `on_stop`; its failure fails the actor."""
        child = ChildGreenlet(self._greenlet, self._child_ended, run, *args)
        self._children.add(child)
        child.start()
        return child

    def after(self, seconds: float, message: Any) -> Timer:
        """Deliver `message` to `on_receive`, before waiting data, in `seconds`."""
        return self._timer(seconds, message, repeat=False)

    def every(self, seconds: float, message: Any) -> Timer:
        """Deliver `message` to `on_receive`, before waiting data, each `seconds`; missed ones are not made up."""
        return self._timer(seconds, message, repeat=True)

    def _timer(self, seconds: float, message: Any, *, repeat: bool) -> Timer:
        mailbox = self._own_cell().mailbox
        timer = Timer(mailbox, seconds, message, repeat=repeat, gone=self._timers.discard)
        self._timers.add(timer)
        return timer

    def watch(self, address: Address[Any], message_factory: Callable[[Terminated], Any]) -> Watch:
        """Deliver `message_factory(Terminated(...))`, as control, once `address` has ended for good.

        Also if it has already. A restart is no end. The watch ends with this life of the actor.
        """
        own = self._own_cell().address
        watch = address.cell.watch(lambda terminated: own.tell_control(message_factory(terminated)))
        self._watches.append(watch)
        return watch

    def _child_ended(self, child: ChildGreenlet, error: BaseException | None) -> None:
        self._children.discard(child)
        if error is not None and self._running:
            with contextlib.suppress(ActorDeadError):
                self._own_cell().mailbox.put_control(Envelope(ChildFailure(error)))

    # -- one life, in its greenlet

    _running = True
    _greenlet: Any = None

    def __init__(self) -> None:
        super().__init__()
        self._children: set[ChildGreenlet] = set()
        self._timers: set[Timer] = set()
        self._watches: list[Watch] = []

    def _live(self) -> Failure | None:
        """Run from `on_start` to `on_stop` or `on_failure`; nothing is raised, a failure is returned."""
        cell = self._own_cell()
        self._greenlet = cell.mailbox.consumer = gevent.getcurrent()
        failure: Failure | None
        try:
            self.on_start()
            cell.running()
            failure = self._loop(cell)
        except BaseException as error:  # noqa: BLE001 - Timeout and GreenletExit are this actor's alone
            failure = Failure(_cause(error, Cause.IDLE) if cell.started_at else Cause.START, error)
        self._release()
        failure = self._last_words(failure)
        if failure is not None and isinstance(failure.exception, KeyboardInterrupt):
            raise failure.exception  # it is meant for the program; gevent hands it to the main greenlet
        return failure

    def _release(self) -> None:
        self._running = False
        self.actor_stopped.set()
        for watch in self._watches:
            watch.cancel()
        for timer in tuple(self._timers):
            timer.cancel()
        for child in tuple(self._children):
            child.dismiss()

    def _last_words(self, failure: Failure | None) -> Failure | None:
        try:
            gevent.joinall(tuple(self._children), timeout=CHILDREN_GRACE)
            if failure is None:
                self.on_stop()
            else:
                error = failure.exception
                self.on_failure(type(error) if error else None, error, error.__traceback__ if error else None)
        except BaseException as error:  # noqa: BLE001 - as above
            return failure or Failure(_cause(error, Cause.STOP), error)
        return failure

    def _loop(self, cell: Cell) -> Failure | None:
        mailbox = cell.mailbox
        take, admit = mailbox.take, mailbox.admit
        control, data, held = mailbox.control, mailbox.data, mailbox.held
        popleft = data.popleft
        singly = not mailbox.spec.drain
        on_receive = self.on_receive
        now = turn = monotonic()
        while self._running:
            # What `take` would do, without the call, for what is most frequent.
            if data and singly and not control:
                item = popleft()
                if held:
                    admit()
            else:
                item = take()
            if item is EMPTY:
                cell.busy += now - turn
                mailbox.wait()
                now = turn = monotonic()
                continue
            kind = type(item)
            count = 1
            cell.current = item
            cell.began = now
            try:
                if kind not in _NOT_PLAIN:
                    on_receive(item)
                elif kind is Envelope:
                    self._open(item, cell)
                elif kind is Batch:
                    count = len(item)
                    self.on_drain(item)
                else:
                    self._dispatch(item)
            except BaseException as error:  # noqa: BLE001 - as above
                return self._fail_on(item, error)
            cell.current = EMPTY
            cell.handled += count
            now = monotonic()
            if now - turn > TURN:
                cell.busy += now - turn
                gevent.sleep(0)
                now = turn = monotonic()
        cell.busy += now - turn
        return None

    def _open(self, envelope: Envelope, cell: Cell) -> None:
        message, reply = envelope.message, envelope.reply_to
        kind = type(message)
        if kind is StopRequest:
            self._running = False
            if reply is not None:
                cell.stop_replies.append(reply)
        elif reply is not None:
            self._answer(message, reply, cell)
        elif kind is Timer:
            if message.take():
                self.on_receive(message.message)
        elif kind is ChildFailure:
            raise message.error
        elif kind is _StopMark:
            self._reach(message, cell)
        else:
            self._dispatch(message)

    def _answer(self, message: Any, reply: GeventFuture[Any], cell: Cell) -> None:
        try:
            value = self._dispatch(message)
        except Exception as error:
            reply.set_exception(sys.exc_info())
            if isinstance(error, cell.spec.failures_from_ask):
                raise
        else:
            reply.set(value)

    def _fail_on(self, item: Any, error: BaseException) -> Failure:
        cell = self._own_cell()
        cell.current = EMPTY
        cause = Cause.MESSAGE
        if type(item) is Envelope:
            message = item.message
            if type(message) is ChildFailure:
                return Failure(Cause.CHILD, error)
            if item.reply_to is not None:
                cause = Cause.CALL
                if not isinstance(error, Exception):
                    dead = ActorDeadError(f"{self} failed on the message: {error!r}")
                    dead.__cause__ = error
                    fail_reply(item, dead)
            item = message.message if type(message) is Timer else message
        for message in item if type(item) is Batch else (item,):
            cell.discard(message, "failed")
        return Failure(_cause(error, cause), error)

    # -- an ordered stop, from outside

    def _finish(self, *, drain: bool) -> None:
        mailbox = self._own_cell().mailbox
        if drain and not mailbox.quiet:
            mailbox.put_last(Envelope(_StopMark(self)))
        else:
            self.stop()

    def _reach(self, mark: _StopMark, cell: Cell) -> None:
        if mark.actor is self:
            if cell.mailbox.quiet:
                self._running = False
            else:
                cell.mailbox.put_last(Envelope(mark))


def _cause(error: BaseException, otherwise: Cause) -> Cause:
    return Cause.KILLED if isinstance(error, gevent.GreenletExit) else otherwise
