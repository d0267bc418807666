"""The journal of windows in Redis: what is not safely in PostgreSQL yet."""

from collections.abc import Collection, Iterator, Mapping

import redis

from marketflow.adapters.redis.client import Command, Link, scan
from marketflow.adapters.redis.keys import split_field, windows_key
from marketflow.domain.mode import Mode
from marketflow.domain.window import WindowKey


class RedisWindowJournal:
    """Implements `marketflow.ports.WindowJournal`. Nothing in it expires: it stays until it is stored and forgotten."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._link = Link(client)

    def save(self, mode: Mode, windows: Mapping[WindowKey, bytes]) -> None:
        """Set the whole journalled state of windows."""
        self._link.run(_save_commands(mode, windows))

    def load(self, mode: Mode, exchange: str) -> dict[WindowKey, bytes]:
        """Return what is journalled for an exchange."""
        found: dict[WindowKey, bytes] = {}
        for field, state in scan(self._client, windows_key(mode, exchange)):
            symbol, start = split_field(field)
            found[WindowKey(exchange, symbol, start)] = state
        return found

    def forget(self, mode: Mode, keys: Collection[WindowKey]) -> None:
        """Remove windows that are stored."""
        self._link.run(_forget_commands(mode, keys))


def _save_commands(mode: Mode, windows: Mapping[WindowKey, bytes]) -> Iterator[Command]:
    by_exchange: dict[str, list[str | bytes]] = {}
    for (exchange, symbol, start), state in windows.items():
        by_exchange.setdefault(exchange, []).extend((f"{symbol}:{start}", state))
    for exchange, fields in by_exchange.items():
        yield "HSET", windows_key(mode, exchange), *fields


def _forget_commands(mode: Mode, keys: Collection[WindowKey]) -> Iterator[Command]:
    by_exchange: dict[str, list[str]] = {}
    for exchange, symbol, start in keys:
        by_exchange.setdefault(exchange, []).append(f"{symbol}:{start}")
    for exchange, fields in by_exchange.items():
        yield "HDEL", windows_key(mode, exchange), *fields
