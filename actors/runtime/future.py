"""Pykka's future for greenlets of one thread: no locks, one switch."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TypeVar

import gevent
from gevent.hub import Waiter
from pykka import Future, Timeout

from actors.runtime.errors import DeadlockError

T = TypeVar("T")

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class GeventFuture(Future[T]):
    """A `pykka.Future` that a greenlet can wait for without holding up its thread."""

    _done = False
    _value: Any = None
    _exc_info: ExcInfo | None = None
    _waiters: list[Waiter[None]] | None = None

    answerer: Any = None
    """Has a `consumer`, the greenlet that will answer: it must not wait for itself."""

    def get(self, *, timeout: float | None = None) -> Any:
        """See `pykka.Future.get`. Raises `DeadlockError` in the actor that has to give the answer itself."""
        if not self._done and self._get_hook is None:
            self._wait(timeout)
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        if self._exc_info is not None:
            kind, value, traceback = self._exc_info
            if value is None:
                value = (kind or RuntimeError)()
            raise value.with_traceback(traceback)
        return self._value

    def _wait(self, timeout: float | None) -> None:
        if self.answerer is not None and self.answerer.consumer is gevent.getcurrent():
            raise DeadlockError("an actor cannot wait for an answer of its own")
        if timeout is not None and timeout > 0:
            gevent.sleep(0)  # an actor that is idle has answered then, and no timer is needed
            if self._done or self._get_hook is not None:
                return
        waiter: Waiter[None] = Waiter()
        if self._waiters is None:
            self._waiters = [waiter]
        else:
            self._waiters.append(waiter)
        if timeout is None:
            waiter.get()
            return
        if timeout <= 0:
            raise Timeout(f"{timeout} seconds")
        timer = gevent.Timeout.start_new(timeout)
        try:
            waiter.get()
        except gevent.Timeout as error:
            if error is not timer:
                raise
            raise Timeout(f"{timeout} seconds") from None
        finally:
            timer.close()

    def set(self, value: T | None = None) -> None:
        """See `pykka.Future.set`. Raises `queue.Full` if there is a result already."""
        self._resolve()
        self._value = value

    def set_exception(self, exc_info: Any = None) -> None:
        """See `pykka.Future.set_exception`. Raises `queue.Full` if there is a result already."""
        self._resolve()
        self._exc_info = exc_info or sys.exc_info()

    def set_get_hook(self, func: Any) -> None:
        """See `pykka.Future.set_get_hook`. Raises `queue.Full` if there is a result already."""
        if self._done:
            raise queue.Full
        super().set_get_hook(func)
        self._wake()

    def _resolve(self) -> None:
        if self._done or self._get_hook is not None:
            raise queue.Full
        self._done = True
        if self._waiters is not None:
            self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters or ():
            # A waiter whose greenlet was killed or timed out meanwhile keeps the switch to itself.
            waiter.hub.loop.run_callback(waiter.switch, None)
        self._waiters = None


def get_all(futures: Iterable[Future[T]], *, timeout: float | None = None) -> list[T]:
    """As `pykka.get_all`, with `timeout` seconds for all of them together. Raises `pykka.Timeout`."""
    if timeout is None:
        return [future.get() for future in futures]
    deadline = time.monotonic() + timeout
    return [future.get(timeout=max(0.0, deadline - time.monotonic())) for future in futures]
