"""Prices and the window journal in a real server, with each way in which servers expire fields."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketflow.adapters.clock import SystemClock
from marketflow.adapters.redis import RedisCluster, RedisPriceCache, RedisWindowJournal, connect, new_node_name, prices
from marketflow.adapters.redis.client import ask
from marketflow.domain.mode import LIVE, MODES, TEST
from marketflow.domain.series import BLOCK_MS, RECORD_BYTES
from marketflow.domain.view import Flush, Latest
from marketflow.domain.window import WindowKey
from tests.support.valkey_server import ValkeyServer, running_valkey
from tests.support.waiting import wait_until

RETENTION = 5 * 60_000
SKEW = 60_000
RECORD = bytes(range(RECORD_BYTES))

# Taking commands away makes a new server as old as need be: Valkey 9, Redis 7.4, Redis 6.2.
AGES = {"hsetex": (), "hpexpire": ("HSETEX",), "sweep": ("HSETEX", "HPEXPIRE")}


@pytest.fixture(scope="module", params=AGES)
def server(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    with running_valkey() as plain, connect(plain.url) as client:
        known = [command for command in AGES[request.param] if ask(client, [("COMMAND", "INFO", command)])[0][0]]
    with running_valkey(*(word for command in known for word in ("--rename-command", command, ""))) as server:
        yield server


@dataclass
class Parts:
    """A client and what is tested with it."""

    client: redis.Redis
    cache: RedisPriceCache
    journal: RedisWindowJournal


@pytest.fixture
def parts(server: ValkeyServer) -> Iterator[Parts]:
    with connect(server.url, timeout=5) as client:
        client.flushall()
        cluster = RedisCluster(client, new_node_name())
        cache = RedisPriceCache(client, cluster, SystemClock(), series_retention=RETENTION, max_skew=SKEW)
        yield Parts(client, cache, RedisWindowJournal(client))


def latest(prices: Mapping[str, Mapping[str, Latest]]) -> Flush:
    return Flush(prices, {})


def slices(by_exchange: Mapping[str, Mapping[str, Mapping[int, bytes]]]) -> Flush:
    return Flush({}, by_exchange)


def now_slice() -> int:
    return SystemClock().now() // 100 * 100


def test_a_latest_price_is_json_by_exchange(parts: Parts) -> None:
    parts.cache.write(LIVE, latest({"BTCUSDT": {"exchange2": Latest(67012.5, 1763827200123)}}))
    values = parts.client.hgetall("marketflow:live:latest:BTCUSDT")
    assert {exchange: json.loads(value) for exchange, value in values.items()} == {
        b"exchange2": {"price": 67012.5, "timestamp": 1763827200123}
    }


names = st.text("ABCXYZ0189-._é", min_size=1, max_size=8)
some_prices = st.floats(min_value=5e-324, allow_nan=False, allow_infinity=False)
some_latest = st.dictionaries(
    names, st.dictionaries(names, st.builds(Latest, some_prices, st.integers(0, 2**53)), min_size=1), max_size=5
)


@given(written=some_latest)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_latest_prices_come_back_exactly(parts: Parts, written: dict[str, dict[str, Latest]]) -> None:
    parts.client.flushall()
    parts.cache.write(LIVE, latest(written))
    assert parts.cache.read_latest(LIVE, [*written, "ABSENT"]) == written
    assert parts.cache.read_latest(TEST, written) == {}


def test_a_later_write_replaces_the_price_of_its_exchange_alone(parts: Parts) -> None:
    parts.cache.write(LIVE, latest({"BTCUSDT": {"a": Latest(1.0, 1), "b": Latest(2.0, 2)}}))
    parts.cache.write(LIVE, latest({"BTCUSDT": {"b": Latest(3.0, 3)}}))
    assert parts.cache.read_latest(LIVE, ["BTCUSDT"]) == {"BTCUSDT": {"a": Latest(1.0, 1), "b": Latest(3.0, 3)}}


def test_more_symbols_than_are_asked_for_at_once(parts: Parts) -> None:
    written = {f"S{number}": {"a": Latest(float(number + 1), number)} for number in range(1_000)}
    parts.cache.write(LIVE, latest(written))
    assert parts.cache.read_latest(LIVE, written) == written


def test_a_price_that_is_not_written_again_is_gone_alone(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "LATEST_MS", 600)
    kept = {"BTCUSDT": {"kept": Latest(2.0, 2)}}
    parts.cache.write(LIVE, latest({"BTCUSDT": {"lost": Latest(1.0, 1), **kept["BTCUSDT"]}}))
    assert len(parts.cache.read_latest(LIVE, ["BTCUSDT"])["BTCUSDT"]) == 2

    def lost() -> bool:
        parts.cache.write(LIVE, latest(kept))
        return parts.cache.read_latest(LIVE, ["BTCUSDT"]) == kept

    wait_until(lost, "the price is gone")
    parts.cache.sweep(LIVE)
    parts.cache.write(LIVE, latest(kept))
    assert parts.client.hkeys("marketflow:live:latest:BTCUSDT") == [b"kept"]
    wait_until(lambda: not parts.client.keys("*"), "every key is gone by itself")


def test_a_price_is_there_for_a_minute(parts: Parts) -> None:
    parts.cache.write(LIVE, latest({"BTCUSDT": {"a": Latest(1.0, 1)}}))
    key = "marketflow:live:latest:BTCUSDT"
    left = parts.client.pttl(key)
    if left == -1:
        (left,) = parts.client.hpttl(key, "a")
    assert 50_000 < left <= 60_000


def test_a_sweep_leaves_what_is_fresh_and_other_modes(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = {"BTCUSDT": {"a": Latest(1.0, 1)}}
    parts.cache.write(TEST, latest(fresh))
    parts.cache.write(LIVE, latest(fresh))
    parts.cache.sweep(LIVE)
    assert parts.cache.read_latest(LIVE, ["BTCUSDT"]) == fresh
    assert parts.cache.read_latest(TEST, ["BTCUSDT"]) == fresh


times_ago = st.integers(-SKEW // 100, RETENTION // 100 - 100)
some_slices = st.dictionaries(
    st.sampled_from(["e", "f:1"]),
    st.dictionaries(
        names, st.dictionaries(times_ago, st.binary(min_size=RECORD_BYTES, max_size=RECORD_BYTES), min_size=1)
    ),
)


@given(mode=st.sampled_from(MODES), ago=some_slices)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_slices_come_back_exactly(parts: Parts, mode: str, ago: dict[str, dict[str, dict[int, bytes]]]) -> None:
    parts.client.flushall()
    start = now_slice()
    written = {
        exchange: {
            symbol: {start - 100 * back: record for back, record in records.items()}
            for symbol, records in pairs.items()
        }
        for exchange, pairs in ago.items()
    }
    parts.cache.write(LIVE, slices(written))
    for exchange, pairs in written.items():
        assert parts.cache.read_series(LIVE, exchange, 0) == pairs
        since = start - 12_300
        later = {symbol: {at: r for at, r in records.items() if at >= since} for symbol, records in pairs.items()}
        found = parts.cache.read_series(LIVE, exchange, since)
        assert found == {symbol: records for symbol, records in later.items() if records}
    assert parts.cache.read_series(TEST, "e", 0) == {}


def test_slices_expire_with_their_block(parts: Parts) -> None:
    start = now_slice()
    parts.cache.write(LIVE, slices({"e": {"BTCUSDT": {start: RECORD, start - BLOCK_MS: RECORD}}}))
    blocks = parts.client.keys("marketflow:live:series:e:*")
    assert len(blocks) == 2
    assert all(RETENTION < parts.client.pttl(block) <= RETENTION + BLOCK_MS for block in blocks)


def test_a_series_of_many_pairs_is_read_whole(parts: Parts) -> None:
    start = now_slice()
    written = {f"S{number}": {start: RECORD, start - 100: RECORD} for number in range(5_000)}
    parts.cache.write(LIVE, slices({"e": written}))
    assert parts.cache.read_series(LIVE, "e", 0) == written


def test_journalled_windows_stay_until_they_are_forgotten(parts: Parts) -> None:
    one, two, other = WindowKey("e", "A:B", 60_000), WindowKey("e", "C", 120_000), WindowKey("f", "C", 60_000)
    parts.journal.save(LIVE, {one: b"\x00old", two: b"2", other: b"3"})
    parts.journal.save(LIVE, {one: b"\x00new\xff"})
    assert parts.journal.load(LIVE, "e") == {one: b"\x00new\xff", two: b"2"}
    assert parts.journal.load(TEST, "e") == {}
    assert parts.client.pttl("marketflow:live:windows:e") == -1
    parts.journal.forget(LIVE, [one, other])
    assert parts.journal.load(LIVE, "e") == {two: b"2"}
    assert parts.journal.load(LIVE, "f") == {}
    parts.journal.forget(LIVE, [])


def test_every_key_has_the_prefix_and_all_but_the_journal_expire(parts: Parts) -> None:
    start = now_slice()
    parts.cache.write(TEST, Flush({"S": {"e": Latest(1.0, 1)}}, {"e": {"S": {start: RECORD}}}))
    parts.journal.save(TEST, {WindowKey("e", "S", 0): b"w"})
    (found,) = ask(parts.client, [("KEYS", "*")])
    assert all(key.startswith(b"marketflow:test:") for key in found)
    lasting = {key for key in found if parts.client.pttl(key) == -1 and b":latest:" not in key}
    assert lasting == {b"marketflow:test:windows:e"}
