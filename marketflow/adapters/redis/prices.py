"""Latest prices and the recent series in Redis: the hot path, one pipeline a flush."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

import gevent
import msgspec
import redis

from marketflow.adapters.redis import keys, wire
from marketflow.adapters.redis.client import Command, Link, answering, ask, pairs, scan
from marketflow.adapters.redis.cluster import RedisCluster
from marketflow.domain.bar import SLICE_MS
from marketflow.domain.mode import Mode
from marketflow.domain.period import floor
from marketflow.domain.series import BLOCK_MS
from marketflow.domain.view import Flush, Latest
from marketflow.errors import Unavailable
from marketflow.ports import Clock

LATEST_MS = 60_000
"""How long a latest price stays without being written again, in ms."""

_CHUNK = 200  # hashes of latest prices asked for between two yields to the hub

Expiry: TypeAlias = Literal["hsetex", "hpexpire", "sweep"]
"""How fields of a hash expire: set with their expiry (Valkey >= 9, Redis >= 8), expired by a command (Redis 7.4), or
not at all (older): there the whole hash does, and `sweep` removes single fields."""

# Atomic, so that it cannot remove what another node writes meanwhile. KEYS: the sorted set of keys.refreshed.
# ARGV: the time before which a price is gone, the prefix of the hashes' keys.
_SWEEP = """
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 1000)
for _, member in ipairs(gone) do
    local symbol, exchange = member:match('^(.-)\\n(.*)$')
    redis.call('HDEL', ARGV[2] .. symbol, exchange)
    redis.call('ZREM', KEYS[1], member)
end
return #gone
"""


class _Price(msgspec.Struct, gc=False):
    price: float
    timestamp: int


_decode = msgspec.json.Decoder(_Price).decode


class RedisPriceCache:
    """Implements `marketflow.ports.PriceCache`. Slices stay `series_retention` ms, and ticks may be `max_skew` ms ahead
    of the clock."""

    def __init__(
        self, client: redis.Redis, cluster: RedisCluster, clock: Clock, *, series_retention: int, max_skew: int
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._clock = clock
        self._series_retention = series_retention
        self._max_skew = max_skew
        self._link = Link(client)
        self._sweep = client.register_script(_SWEEP)
        self._known_expiry: Expiry | None = None

    def write(self, mode: Mode, flush: Flush) -> None:
        """Write whole states in one pipeline and tell the other nodes. Latest prices expire a minute after their last
        write, slices after the series' retention."""
        expiry = self._expiry()
        try:
            self._link.run(self._commands(mode, flush, expiry))
        except Unavailable:
            self._known_expiry = None  # another server may answer next
            raise

    def read_latest(self, mode: Mode, symbols: Iterable[str]) -> dict[str, dict[str, Latest]]:
        """Return the latest prices that are there, by symbol and exchange."""
        found: dict[str, dict[str, Latest]] = {}
        gone = self._unswept(mode) if self._expiry() == "sweep" else frozenset[str]()
        asked = list(symbols)
        for at in range(0, len(asked), _CHUNK):
            chunk = asked[at : at + _CHUNK]
            answers = ask(self._client, [("HGETALL", keys.latest(mode, symbol)) for symbol in chunk])
            for symbol, values in zip(chunk, answers, strict=True):
                prices = {
                    exchange: price
                    for exchange, price in _prices(pairs(values))
                    if not gone or _member(symbol, exchange) not in gone
                }
                if prices:
                    found[symbol] = prices
            gevent.sleep(0)
        return found

    def read_series(self, mode: Mode, exchange: str, since: int) -> dict[str, dict[int, bytes]]:
        """Return the slice records of an exchange that start at or after `since`, by symbol and start."""
        found: dict[str, dict[int, bytes]] = {}
        now = self._clock.now()
        first = max(since, now - self._series_retention - BLOCK_MS)
        for block in range(floor(first, BLOCK_MS), now + self._max_skew + BLOCK_MS, BLOCK_MS):
            for field, record in scan(self._client, keys.series(mode, exchange, block)):
                symbol, index = keys.split_field(field)
                start = block + index * SLICE_MS
                if start >= since:
                    found.setdefault(symbol, {})[start] = record
        return found

    def series_since(self, mode: Mode, since: int) -> int:
        """Return since when the series here is complete (Unix ms); a Redis that does not say is told `since`."""
        key = keys.series_since(mode)
        _, known = ask(self._client, [("SET", key, since, "NX"), ("GET", key)])
        return int(known)

    def data_set(self) -> str:
        """Return a name for the data that answers: another one once the server has been restarted or replaced."""
        with answering(self._client):
            return str(self._client.info("server")["run_id"])

    def sweep(self, mode: Mode) -> None:
        """Remove latest prices that were not written for a minute, where the server cannot by itself."""
        if self._expiry() != "sweep":
            return
        arguments: list[str | int] = [self._clock.now() - LATEST_MS, keys.latest(mode, "")]
        with answering(self._client):
            while self._sweep(keys=[keys.refreshed(mode)], args=arguments):
                gevent.sleep(0)

    def ping(self) -> None:
        """Return when the server answers."""
        ask(self._client, [("PING",)])

    def _expiry(self) -> Expiry:
        if self._known_expiry is None:
            ((hsetex, hpexpire),) = ask(self._client, [("COMMAND", "INFO", "HSETEX", "HPEXPIRE")])
            self._known_expiry = "hsetex" if hsetex else "hpexpire" if hpexpire else "sweep"
        return self._known_expiry

    def _commands(self, mode: Mode, flush: Flush, expiry: Expiry) -> Iterator[Command]:
        if flush.latest:
            yield from self._latest_commands(mode, flush.latest, expiry)
        yield from self._series_commands(mode, flush.slices)
        # A node that has just come may not be known yet: an empty message makes it read again. Last in the pipeline, so
        # that who hears of it finds the rest done.
        message = wire.encode(mode, flush) if self._cluster.peers else b""
        yield "PUBLISH", keys.flush_channel(self._cluster.node), message

    def _latest_commands(
        self, mode: Mode, latest: Mapping[str, Mapping[str, Latest]], expiry: Expiry
    ) -> Iterator[Command]:
        members: list[str | int] = []
        now = self._clock.now()
        prefix = keys.latest(mode, "")
        for symbol, prices in latest.items():
            key = prefix + symbol
            fields: list[str] = []
            for exchange, price in prices.items():
                fields += (exchange, f'{{"price":{price.price!r},"timestamp":{price.timestamp}}}')
            if expiry == "hsetex":
                yield "HSETEX", key, "PX", LATEST_MS, "FIELDS", len(prices), *fields
                continue
            yield "HSET", key, *fields
            if expiry == "hpexpire":
                yield "HPEXPIRE", key, LATEST_MS, "FIELDS", len(prices), *prices
            else:
                yield "PEXPIRE", key, LATEST_MS
                for exchange in prices:
                    members += (now, _member(symbol, exchange))
        if members:
            yield "ZADD", keys.refreshed(mode), *members
            yield "PEXPIRE", keys.refreshed(mode), LATEST_MS

    def _series_commands(
        self, mode: Mode, slices: Mapping[str, Mapping[str, Mapping[int, bytes]]]
    ) -> Iterator[Command]:
        for exchange, by_symbol in slices.items():
            blocks: dict[int, list[str | bytes]] = {}
            for symbol, records in by_symbol.items():
                for start, record in records.items():
                    block = start - start % BLOCK_MS
                    fields = blocks.get(block)
                    if fields is None:
                        fields = blocks[block] = []
                    fields += (f"{symbol}:{(start - block) // SLICE_MS}", record)
            for block, fields in blocks.items():
                key = keys.series(mode, exchange, block)
                yield "HSET", key, *fields
                yield "PEXPIRE", key, self._series_retention + BLOCK_MS

    def _unswept(self, mode: Mode) -> frozenset[str]:
        """The latest prices that are gone but were not swept yet."""
        cutoff = self._clock.now() - LATEST_MS
        (members,) = ask(self._client, [("ZRANGEBYSCORE", keys.refreshed(mode), "-inf", cutoff)])
        return frozenset(member.decode() for member in members)


def _member(symbol: str, exchange: str) -> str:
    return f"{symbol}\n{exchange}"


def _prices(values: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[str, Latest]]:
    for exchange, value in values:
        price = _decode(value)
        yield exchange.decode(), Latest(price.price, price.timestamp)
