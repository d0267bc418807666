"""Redis killed, frozen or answering errors: memory answers, ingest goes on, and Redis is filled again."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.support.fault_load import Load, Probe, check_law
from tests.support.fault_system import INTERVAL, FaultSystem, world
from tests.support.oracle import Oracle
from tests.support.ports import free_port
from tests.support.valkey_server import ValkeyServer
from tests.support.waiting import let_pass, wait_until

KEEPS = ("--appendonly", "yes")


def status(system: FaultSystem) -> str:
    return str(system.body("/health")["components"]["redis"]["status"])


def _ticks_in(record: Any) -> int:
    """The number of ticks in the record of a slice."""
    return int.from_bytes(record[24:28], "little")


def check_refilled(system: FaultSystem, oracle: Oracle) -> None:
    """Every slice of the run is in Redis with all its ticks, and so is every latest price."""
    with contextlib.closing(system.redis()) as client:

        def held() -> dict[str, int]:
            counts = dict.fromkeys(oracle.received, 0)
            for key in client.scan_iter("marketflow:live:series:*"):
                counts[key.decode().split(":")[3]] += sum(map(_ticks_in, client.hvals(key)))
            return counts

        expected = {name: oracle.accepted(name) for name in oracle.received}
        wait_until(lambda: held() == expected, f"Redis holds {expected}", 15)
        for symbol in ("BTCUSDT", "ETHUSDT"):
            assert client.hlen(f"marketflow:live:latest:{symbol}") == len(oracle.received)


def survive(
    name: str,
    break_it: Callable[[ValkeyServer], None],
    mend_it: Callable[[ValkeyServer], None],
    away: float,
    *options: str,
) -> None:
    """Let Redis be broken for a while under load; then the law must hold, and Redis have everything again."""
    with world(*options) as (system, oracle, feeds, valkey, _):
        with Load(feeds) as load:
            let_pass(2)
            with Probe(system) as probe:
                break_it(valkey)
                wait_until(lambda: status(system) != "ok", "health says that Redis is away")
                let_pass(away)
                assert system.body("/health")["status"] == "degraded"
                assert system.body("/prices/latest/BTCUSDT")["source"] == "memory"
                mend_it(valkey)
                wait_until(lambda: status(system) == "ok", "it is used again")
                assert system.body("/prices/latest/BTCUSDT")["source"] == "redis"
                let_pass(1)
        probe.check(name)
        assert max(load.slowest.values()) < 2, "ingest stalled"
        check_law(system, oracle, INTERVAL)
        check_refilled(system, oracle)
        assert system.metric("marketflow_actor_restarts_total") == 0


def test_killed_back_full() -> None:
    survive("Redis killed, 3 s, back full", ValkeyServer.kill, ValkeyServer.start, 3, *KEEPS)


@pytest.mark.parametrize("options", [(), KEEPS], ids=["empty", "full"])
def test_killed_for_thirty_seconds(options: tuple[str, ...]) -> None:
    survive(f"Redis killed, 30 s, {options}", ValkeyServer.kill, ValkeyServer.start, 30, *options)


@pytest.mark.quick
def test_killed_back_empty() -> None:
    survive("Redis killed, 3 s, back empty", ValkeyServer.kill, ValkeyServer.start, 3)


def test_frozen_for_twenty_seconds() -> None:
    survive("Redis frozen, 20 s", ValkeyServer.freeze, ValkeyServer.thaw, 20)


@pytest.mark.quick
def test_frozen() -> None:
    survive("Redis frozen, 3 s", ValkeyServer.freeze, ValkeyServer.thaw, 3)


def _settings(*settings: tuple[str, str]) -> Callable[[ValkeyServer], None]:
    def change(valkey: ValkeyServer) -> None:
        with contextlib.closing(redis.Redis.from_url(valkey.url)) as client:
            for name, value in settings:
                client.config_set(name, value)

    return change


def _replica_of(*master: str) -> Callable[[ValkeyServer], None]:
    def change(valkey: ValkeyServer) -> None:
        with contextlib.closing(redis.Redis.from_url(valkey.url)) as client:
            client.execute_command("REPLICAOF", *master)  # type: ignore[no-untyped-call]  # redis-py leaves it so

    return change


def test_out_of_memory() -> None:
    survive("Redis out of memory", _settings(("maxmemory", "1")), _settings(("maxmemory", "0")), 3)


def test_read_only() -> None:
    read_only = _replica_of("127.0.0.1", str(free_port()))
    survive("Redis read-only", read_only, _replica_of("NO", "ONE"), 3)


def test_loading() -> None:
    """After a restart it answers LOADING for as long as its file takes to be read."""

    def restart(valkey: ValkeyServer) -> None:
        with contextlib.closing(redis.Redis.from_url(valkey.url)) as client:
            for number in range(64):  # it looks at its clients every 2 MB
                client.set(f"filler{number}", b"x" * 2**20)
            client.save()
        valkey.kill()
        valkey.start()

    slow = ("--key-load-delay", "60000", "--rdbcompression", "no")
    survive("Redis loading", restart, lambda _: None, 1, *slow)
