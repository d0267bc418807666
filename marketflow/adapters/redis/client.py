"""The connection to Redis: explicit timeouts, no retries, and one exception for whatever goes wrong."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

import gevent
import hiredis
import redis
from redis.backoff import NoBackoff
from redis.connection import BlockingConnectionPool
from redis.retry import Retry

from marketflow.adapters.redis import keys
from marketflow.errors import ConfigurationError, StartupError, Unavailable

OLDEST = (6, 2)
"""The oldest version of Redis that has every command used here."""

SCAN_COUNT = 1_000
"""Fields that one HSCAN asks for: what it answers is parsed within a few ms."""

_PIECE = 64 * 1024  # bytes packed between two yields to the hub

Command: TypeAlias = tuple[str | bytes | int, ...]


def connect(url: str, *, timeout: float = 0.5) -> redis.Redis:
    """Return a client for `redis://`, `rediss://` or `unix://`; it connects when it is used.

    `timeout` (seconds) bounds each of: connecting, a wait for bytes, a wait for a free connection.
    Raises ConfigurationError for a URL that is none.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=32,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            # RESP3 costs as much CPU, and brings pushes and a longer handshake.
            protocol=2,
        )
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError):
        # Their text may hold a part of the password.
        message = "redis.url: expected the address of a Redis server: redis://…, rediss://… or unix://…"
        raise ConfigurationError(message) from None
    return redis.Redis.from_pool(pool)


def check(client: redis.Redis) -> None:
    """Raise StartupError when the server refuses us or is too old, Unavailable when it does not answer."""
    try:
        with _refusing(client, redis.exceptions.ResponseError):
            answering_version = _version(client)
        if answering_version < OLDEST:
            found, needed = (".".join(map(str, version)) for version in (answering_version, OLDEST))
            raise StartupError(f"{_name(client)}: version {found} is too old, {needed} or newer is needed")
        with _refusing(client, redis.exceptions.NoPermissionError):
            client.set(keys.CHECK, b"", px=1_000)
    except redis.exceptions.RedisError as error:
        raise unavailable(client, error) from error


@contextmanager
def _refusing(client: redis.Redis, refusal: type[redis.exceptions.RedisError]) -> Iterator[None]:
    """Turn a refusal, which time will not heal, into StartupError."""
    try:
        yield
    except (refusal, redis.exceptions.AuthenticationError) as error:
        message = f"{_name(client)} refuses: {_line(client, error)}"
        raise StartupError(message) from None


@contextmanager
def answering(client: redis.Redis) -> Iterator[None]:
    """Turn every error of the client into Unavailable."""
    try:
        yield
    except redis.exceptions.RedisError as error:
        raise unavailable(client, error) from error


def unavailable(client: redis.Redis, reason: object) -> Unavailable:
    """Return the exception that says in one line which server did not answer, and why."""
    return Unavailable(f"{_name(client)}: {_line(client, reason)}")


def ask(client: redis.Redis, commands: Iterable[Command]) -> list[Any]:
    """Send all commands on a connection of the pool and return all answers. Raises Unavailable when any failed."""
    with answering(client):
        pool: Any = client.connection_pool
        connection: _Connection = pool.get_connection()
        try:
            return _exchange(connection, commands)
        finally:
            pool.release(connection)


def scan(client: redis.Redis, key: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield a hash's fields and values, in bounded parts between which the hub runs; some may come twice."""
    cursor = b"0"
    while True:
        ((cursor, part),) = ask(client, [("HSCAN", key, cursor, "COUNT", SCAN_COUNT)])
        yield from pairs(part)
        if cursor == b"0":
            return
        gevent.sleep(0)


def pairs(answer: list[bytes]) -> Iterable[tuple[bytes, bytes]]:
    """Return the fields and values of an answer that lists them in turn."""
    return zip(answer[::2], answer[1::2], strict=True)


class Link:
    """One connection kept for a writer: `run` does what `ask` does for half the CPU time.

    After an error it connects anew with the next call.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._connection: _Connection | None = None
        self._lock = threading.Lock()
        self._timeout: float = client.get_connection_kwargs()["socket_timeout"]

    def run(self, commands: Iterable[Command]) -> list[Any]:
        """Send all commands and return all answers. Raises Unavailable when any failed."""
        if not self._lock.acquire(timeout=self._timeout):
            raise unavailable(self._client, "the connection is busy")
        try:
            with answering(self._client):
                if self._connection is None:
                    self._connection = self._client.connection_pool.get_connection()
                return _exchange(self._connection, commands)
        finally:
            self._lock.release()


class _Connection(Protocol):
    """What is used of redis-py's connections, which carry no types."""

    def send_packed_command(self, command: list[bytes], check_health: bool) -> None: ...

    def read_response(self) -> Any: ...

    def disconnect(self) -> None: ...


def _exchange(connection: _Connection, commands: Iterable[Command]) -> list[Any]:
    sent = 0
    try:
        for sent, piece in _pieces(commands):  # noqa: B007  # the last count is that of all
            connection.send_packed_command([piece], check_health=False)
    except BaseException:
        # What was sent in part leaves answers that nobody waits for.
        connection.disconnect()
        raise
    answers: list[Any] = []
    refused: redis.exceptions.ResponseError | None = None
    for _ in range(sent):
        try:
            answers.append(connection.read_response())
        except redis.exceptions.ResponseError as error:
            refused = refused or error
    if refused is not None:
        raise refused
    return answers


def _pieces(commands: Iterable[Command]) -> Iterator[tuple[int, bytes]]:
    """Yield packed commands in pieces, each with the count of commands so far; the hub runs between pieces."""
    packed: list[bytes] = []
    size = count = 0
    for command in commands:
        data = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub says a tuple of one
        packed.append(data)
        size += len(data)
        count += 1
        if size >= _PIECE:
            yield count, b"".join(packed)
            packed, size = [], 0
            gevent.sleep(0)
    if packed:
        yield count, b"".join(packed)


def _version(client: redis.Redis) -> tuple[int, ...]:
    """Which version answers, as Redis counts them."""
    return tuple(int(part) for part in client.info("server")["redis_version"].split("."))


def _name(client: redis.Redis) -> str:
    where = client.get_connection_kwargs()
    address = where["path"] if "path" in where else f"{where.get('host', 'localhost')}:{where.get('port', 6379)}"
    return f"Redis at {address}"


def _line(client: redis.Redis, reason: object) -> str:
    """Return a reason in one line. A server quotes the commands that it does not know; AUTH may be one of them."""
    text = str(reason)
    if password := client.get_connection_kwargs().get("password"):
        text = text.replace(password, "***")
    return " ".join(text.split())[:200]
