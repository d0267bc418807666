"""A past for a system that has not run yet: five minutes of slices in Redis and thirty days of rows in PostgreSQL."""

import random
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from marketflow import logs
from marketflow.adapters.clock import SystemClock
from marketflow.adapters.embedded import EmbeddedServers, Endpoints
from marketflow.adapters.postgres import PostgresStore
from marketflow.adapters.redis import RedisCluster, RedisPriceCache, connect, new_node_name
from marketflow.domain.bar import SLICE_MS, Bar, fold
from marketflow.domain.mode import TEST
from marketflow.domain.series import pack_bar
from marketflow.domain.view import Flush
from marketflow.domain.window import StoredWindow, WindowKey

MINUTE, DAY = 60_000, 86_400_000
_RECENT = 5 * MINUTE
_ROWS_AT_ONCE = 20_000


def write_past(data_dir: Path, symbols: Sequence[str], exchanges: Sequence[str], days: int) -> int:
    """Fill embedded servers that no system uses yet; return the rows of PostgreSQL."""
    logs.configure("error", "console")
    with EmbeddedServers(data_dir) as endpoints:
        _write_slices(endpoints, symbols, exchanges)
        return _write_rows(endpoints, symbols, exchanges, days)


def _write_slices(endpoints: Endpoints, symbols: Sequence[str], exchanges: Sequence[str]) -> None:
    """Write a tick into each slice of the last five minutes."""
    chance = random.Random(1)
    now = time.time_ns() // 1_000_000 // SLICE_MS * SLICE_MS
    with connect(endpoints.redis_url) as redis:
        cluster = RedisCluster(redis, new_node_name())
        cache = RedisPriceCache(redis, cluster, SystemClock(), series_retention=2 * _RECENT, max_skew=MINUTE)
        for exchange in exchanges:
            slices = {
                symbol: {start: pack_bar(_bar(chance, start), None) for start in range(now - _RECENT, now, SLICE_MS)}
                for symbol in symbols
            }
            cache.write(TEST, Flush({}, {exchange: slices}))


def _write_rows(endpoints: Endpoints, symbols: Sequence[str], exchanges: Sequence[str], days: int) -> int:
    """Write a row for each minute but the last three, which the system may have windows of."""
    store = PostgresStore(endpoints.postgres_dsn)
    store.migrate()
    now = time.time_ns() // 1_000_000 // MINUTE * MINUTE
    windows = _windows(symbols, exchanges, now - days * DAY, now - 3 * MINUTE)
    rows = 0
    while piece := list(islice(windows, _ROWS_AT_ONCE)):
        store.store(piece)
        rows += len(piece)
    store.close()
    return rows


def _windows(symbols: Sequence[str], exchanges: Sequence[str], start: int, end: int) -> Iterator[StoredWindow]:
    chance = random.Random(2)
    for time_ in range(start, end, MINUTE):
        for exchange in exchanges:
            for symbol in symbols:
                yield StoredWindow(TEST, WindowKey(exchange, symbol, time_), _bar(chance, time_))


def _bar(chance: random.Random, start: int) -> Bar:
    return fold([chance.uniform(90.0, 110.0)], [start + chance.randrange(SLICE_MS)], 0)
