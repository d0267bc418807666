"""Redis and PostgreSQL away at the same time: memory answers, and nothing is lost once either is back."""

import pytest

from tests.support.chaos_system import chaos_node
from tests.support.fault_load import Load, Probe, check_law, wait_stored_exactly
from tests.support.fault_system import INTERVAL, FaultSystem, world
from tests.support.waiting import let_pass, wait_until


def status(system: FaultSystem, component: str) -> str:
    return str(system.body("/health")["components"][component]["status"])


def statuses(system: FaultSystem) -> tuple[str, str]:
    return status(system, "redis"), status(system, "postgres")


@pytest.mark.quick
def test_both_away_and_back() -> None:
    with world() as (system, oracle, feeds, valkey, postgres_server):
        with Load(feeds) as load:
            let_pass(2)
            with Probe(system) as probe:
                valkey.kill()
                postgres_server.stop()
                wait_until(lambda: statuses(system) == ("down", "down"), "health says that both are away")
                let_pass(4)
                assert system.get("/health").status == 200
                assert system.body("/prices/latest/BTCUSDT")["source"] == "memory"
                assert system.body("/prices/average/BTCUSDT?period=5s")["source"] == "memory"
                postgres_server.start()
                valkey.start()
                wait_until(lambda: statuses(system) == ("ok", "ok"), "both are used again", 20)
                let_pass(1)
        probe.check("both away")
        assert max(load.slowest.values()) < 2, "ingest stalled"
        check_law(system, oracle, INTERVAL)


@pytest.mark.parametrize("back", ["redis", "postgres"])
def test_killed_once_either_is_back(back: str) -> None:
    """What waited in memory is safe as soon as one of them is there, even if MarketFlow is killed then."""
    with world("--appendonly", "yes") as (system, oracle, feeds, valkey, postgres_server):
        with Load(feeds):
            let_pass(2)
            valkey.kill()
            postgres_server.stop()
            wait_until(lambda: statuses(system) == ("down", "down"), "health says that both are away")
            let_pass(3)
        if back == "redis":
            valkey.start()
            wait_until(lambda: status(system, "redis") == "ok", "Redis is used again")
            let_pass(0.5)  # the journal is written again within this time, and 100 ms after a tick
        else:
            postgres_server.start()
            wait_until(lambda: status(system, "postgres") == "ok", "PostgreSQL is used again", 20)
            wait_until(lambda: not system.metric("marketflow_windows_waiting"), "every window is stored")
        system.kill()
        for feed in feeds:
            feed.cut()
        if back == "redis":
            postgres_server.start()
        else:
            valkey.start()
        system.start_ready()
        wait_stored_exactly(system, oracle, INTERVAL)


def test_both_away_at_the_start() -> None:
    with world("--appendonly", "yes") as (system, oracle, feeds, valkey, postgres_server):
        with Load(feeds):
            let_pass(2)
        assert system.terminate() == 0
        valkey.kill()
        postgres_server.stop()
        system.start()
        with Load(feeds):
            wait_until(system.is_ready, "it serves what it receives", 30)
            let_pass(2)
            assert system.body("/prices/latest/BTCUSDT")["source"] == "memory"
            valkey.start()
            wait_until(lambda: status(system, "redis") == "ok", "Redis is used")
            let_pass(1)
            postgres_server.start()
        wait_stored_exactly(system, oracle, INTERVAL)
        body = system.body("/prices/average/BTCUSDT?period=1m")
        assert body["ticks"] == len(oracle.of("BTCUSDT", None, body["from"], body["to"]))


def test_feeds_are_held_when_nothing_more_can_be_kept() -> None:
    """With both away for longer than the memory lasts, exchanges feel it, and still nothing is lost."""
    with chaos_node(most_waiting=60) as (node, feeds, valkey, postgres_server):
        with Load(feeds):
            let_pass(1)
            valkey.kill()
            postgres_server.stop()

            def held() -> bool:
                before = node.metric("marketflow_ticks_received_total")
                let_pass(0.5)
                return node.metric("marketflow_ticks_received_total") == before

            wait_until(held, "nothing more is received", 20)
            assert node.get("/prices/latest/BTCUSDT").status == 200
            valkey.start()
            postgres_server.start()
            wait_until(lambda: not held(), "it is received again", 20)
        check_law(node, node.sent, INTERVAL)
