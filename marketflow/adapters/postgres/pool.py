"""A few connections, each used by one native thread at a time, for greenlets that wait without stopping the hub."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_RDWR
from typing import Any, Generic, NamedTuple, TypeVar

import psycopg2
from gevent import Timeout
from gevent.monkey import get_original
from gevent.queue import Empty, LifoQueue
from gevent.threadpool import ThreadPool
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names this class in lower case

from marketflow.adapters.postgres.connection import connect, prepare
from marketflow.adapters.postgres.faults import unavailable
from marketflow.errors import Unavailable

T = TypeVar("T")

# Under monkey patching a socket belongs to the hub of the thread that makes it.
_native_socket: Any = get_original("socket", "socket")


class _Outcome(NamedTuple, Generic[T]):
    """What a job came to. A value, since the thread pool prints the traceback of whatever is raised in its threads."""

    value: Any
    error: BaseException | None


class _Session:
    """One connection, opened when it is needed. `arm` and `abort` are the hub's to call, the rest a native thread's."""

    def __init__(self, dsn: str, timeout: float) -> None:
        self._dsn = dsn
        self._timeout = timeout
        self._connection: Connection | None = None
        self._wire: Any = None
        self._aborted = False

    def arm(self) -> None:
        """Forget the abort of an earlier job."""
        self._aborted = False

    def abort(self) -> None:
        """Make the job under way fail at once by cutting its connection; psycopg2 cannot be interrupted otherwise."""
        self._aborted = True
        wire = self._wire
        if wire is not None:
            with suppress(OSError):
                wire.shutdown(SHUT_RDWR)

    def run(self, job: Callable[[Connection], T]) -> _Outcome[T]:
        """Do a job, once more on a new connection when an idle one turns out to be dead. Never raises."""
        try:
            try:
                return _Outcome(self._attempt(job), None)
            except _IdleConnectionLost:
                return _Outcome(self._attempt(job), None)
        except BaseException as error:  # noqa: BLE001 - raised again in the greenlet that waits
            return _Outcome(None, error)

    def close(self) -> None:
        """Close the connection if there is one."""
        connection, wire = self._connection, self._wire
        self._connection = self._wire = None
        if wire is not None:
            wire.close()
        if connection is not None:
            connection.close()

    def _attempt(self, job: Callable[[Connection], T]) -> T:
        idle = self._connection
        try:
            return job(self._open() if idle is None else idle)
        except BaseException as error:
            lost = idle is not None and idle.closed != 0
            # Whatever went wrong and whatever state it left the session in: a new connection is cheap.
            self.close()
            if lost and not self._aborted and isinstance(error, psycopg2.Error):
                raise _IdleConnectionLost from error
            raise

    def _open(self) -> Connection:
        connection = self._connection = connect(self._dsn, self._timeout)
        # A descriptor of our own: libpq's may be closed, and its number used again, while `abort` looks at it.
        self._wire = _native_socket(fileno=os.dup(connection.fileno()))
        if self._aborted:
            raise Unavailable("PostgreSQL: connected too late")
        prepare(connection, self._timeout)
        return connection


class _IdleConnectionLost(Exception):
    """The server closed the connection while nobody used it: no failure yet."""


class Pool:
    """Runs jobs on at most `size` connections, each job bounded by `timeout` seconds from the call to the answer.

    A pool belongs to the thread that makes it and its hub, and is not for use after a fork.
    """

    def __init__(self, dsn: str, size: int, timeout: float) -> None:
        self._timeout = timeout
        self._sessions = [_Session(dsn, timeout) for _ in range(size)]
        self._idle: LifoQueue[_Session] = LifoQueue()
        for session in self._sessions:
            self._idle.put_nowait(session)
        self._threads = ThreadPool(size)
        self._closed = False

    def run(self, job: Callable[[Connection], T], timeout: float | None = None) -> T:
        """Do a job with a connection in autocommit and return what it returns. Another `timeout` may be given.

        Raises Unavailable when the server does not do it in time; what the job raises by a fault of its own is raised.
        """
        if self._closed:
            raise Unavailable("PostgreSQL: the connections are closed")
        limit = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        try:
            session = self._idle.get(timeout=limit)
        except Empty:
            raise Unavailable(f"PostgreSQL: no answer within {limit:g} s") from None
        session.arm()
        work = self._threads.spawn(session.run, job)
        # The session is free when its thread is, which may be after its caller has given up.
        work.rawlink(lambda _: self._idle.put_nowait(session))
        try:
            outcome: _Outcome[T] | None = work.wait(timeout=max(0.0, deadline - time.monotonic()))
        except BaseException:
            session.abort()
            raise
        if outcome is None:
            session.abort()
            raise Unavailable(f"PostgreSQL: no answer within {limit:g} s")
        if outcome.error is None:
            return outcome.value  # type: ignore[no-any-return]  # T unless there is an error
        raise _translated(outcome.error)

    def close(self) -> None:
        """Close all connections; jobs under way are cut off. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for session in self._sessions:
            session.abort()
        with Timeout(self._timeout, False):  # type: ignore[arg-type]  # False: end quietly; the stubs do not know it
            for _ in self._sessions:
                self._threads.spawn(self._idle.get().close).get()
        self._threads.kill()


def _translated(error: BaseException) -> BaseException:
    """Return what to raise for what a job raised."""
    if isinstance(error, psycopg2.Error):
        away = unavailable(error)
        if away is not None:
            away.__cause__ = error
            return away
    return error
