"""What an actor sets going beside its messages: timers and linked child greenlets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import gevent
from gevent import get_hub
from pykka import ActorDeadError

from actors.runtime.mailbox import Envelope, Internal, Mailbox


class Timer(Internal):
    """Delivers a message to a mailbox, as control, once or again and again; `cancel` is final."""

    def __init__(
        self, mailbox: Mailbox, seconds: float, message: Any, *, repeat: bool, gone: Callable[[Timer], None]
    ) -> None:
        if seconds < 0 or (repeat and seconds == 0):
            raise ValueError(f"a timer needs seconds in the future, got {seconds}")
        self.message = message
        self.repeat = repeat
        self.cancelled = False
        self._mailbox = mailbox
        self._gone = gone
        self._waits = False
        self._timer = get_hub().loop.timer(seconds, seconds if repeat else 0.0)
        self._timer.start(self._fire, update=True)

    def _fire(self) -> None:
        # One that the actor has not come to handle yet is enough: ticks must not pile up in its mailbox.
        if self._waits or self.cancelled:
            return
        self._waits = True
        try:
            self._mailbox.put_control(Envelope(self))
        except ActorDeadError:
            self.cancel()

    def take(self) -> bool:
        """The actor comes to handle it: is it still wanted?"""
        self._waits = False
        wanted = not self.cancelled
        if not self.repeat:
            self.cancel()
        return wanted

    def cancel(self) -> None:
        """Deliver nothing any more, not even what waits in the mailbox already."""
        if not self.cancelled:
            self.cancelled = True
            self._timer.stop()
            self._timer.close()
            self._gone(self)


class ChildFailure(Internal):
    """The control message that tells an actor how its child greenlet failed."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Died:
    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class ChildGreenlet(gevent.Greenlet):  # type: ignore[type-arg]  # generic in its stubs only, not when it runs
    """A greenlet that belongs to an actor: it ends with it, and its failure is the actor's.

    Killed by its own actor or by a sibling it just ends; killed by anyone else, it has failed.
    """

    def __init__(
        self, owner: Any, report: Callable[[ChildGreenlet, BaseException | None], None], run: Any, *args: Any
    ) -> None:
        super().__init__(_guarded, run, *args)
        self.owner = owner
        self.dismissed = False
        self._report = report
        self.rawlink(_report_end)

    def kill(self, *args: Any, **kwargs: Any) -> None:
        """See `gevent.Greenlet.kill`."""
        current = gevent.getcurrent()
        if current is self.owner or getattr(current, "owner", None) is self.owner:
            self.dismissed = True
        super().kill(*args, **kwargs)

    def dismiss(self) -> None:
        """End it, soon, without holding that against its actor."""
        self.dismissed = True
        super().kill(block=False)


def _guarded(run: Any, *args: Any) -> Any:
    try:
        run(*args)
    except BaseException:  # noqa: BLE001 - whatever it is, it goes to the actor, and never on to the hub
        return _Died(sys.exc_info()[1] or RuntimeError("failed"))
    return None


def _report_end(child: Any) -> None:
    value = child.value
    error = value.error if isinstance(value, _Died) else value
    child._report(child, None if child.dismissed else error)
