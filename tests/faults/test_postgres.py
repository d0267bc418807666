"""PostgreSQL stopped, frozen, killed in mid-write, out of disk, or away over a restart: windows wait, none is lost."""

import contextlib

import psycopg2
import pytest

from tests.support.fault_load import Load, Probe, check_counts, check_law, wait_stored_exactly
from tests.support.fault_system import INTERVAL, FaultSystem, world
from tests.support.waiting import let_pass, wait_until

WINDOWS = 10
"""How many windows end while it is away."""


def status(system: FaultSystem) -> str:
    return str(system.body("/health")["components"]["postgres"]["status"])


@pytest.mark.quick
def test_stopped_for_ten_windows() -> None:
    with world() as (system, oracle, feeds, _, postgres_server):
        with Load(feeds) as load:
            let_pass(2)
            with Probe(system) as probe:
                postgres_server.stop()
                wait_until(lambda: status(system) != "ok", "health says that PostgreSQL is away")
                let_pass(WINDOWS * INTERVAL / 1000)
                assert system.body("/health")["components"]["postgres"]["windows_waiting"] >= 3 * 5 * (WINDOWS - 1)
                postgres_server.start()
                wait_until(lambda: status(system) == "ok", "it is used again")
                let_pass(1)
        probe.check("PostgreSQL stopped")
        assert max(load.slowest.values()) < 2, "ingest stalled"
        check_law(system, oracle, INTERVAL)
        assert system.metric("marketflow_actor_restarts_total") == 0


def test_frozen_for_ten_windows() -> None:
    with world() as (system, oracle, feeds, _, postgres_server):
        with Load(feeds) as load:
            let_pass(2)
            with Probe(system) as probe:
                postgres_server.freeze()
                wait_until(lambda: status(system) != "ok", "health says that PostgreSQL is away", 20)
                let_pass(WINDOWS * INTERVAL / 1000)
                postgres_server.thaw()
                wait_until(lambda: status(system) == "ok", "it is used again", 20)
                let_pass(1)
        probe.check("PostgreSQL frozen")
        assert max(load.slowest.values()) < 2, "ingest stalled"
        check_law(system, oracle, INTERVAL)


def test_killed_in_mid_write_again_and_again() -> None:
    with world() as (system, oracle, feeds, _, postgres_server):
        with Load(feeds):
            let_pass(2)
            with Probe(system) as probe:
                for _ in range(5):
                    let_pass(1.3)
                    _wait_for_write(system)
                    postgres_server.kill()
                    let_pass(0.5)
                    postgres_server.start()
                    wait_until(lambda: status(system) == "ok", "it is used again", 20)
        probe.check("PostgreSQL killed in mid-write")
        check_law(system, oracle, INTERVAL)


def _wait_for_write(system: FaultSystem) -> None:
    """Return when a session of MarketFlow is in a transaction; they are short, so soon after is good enough."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'marketflow' AND state <> 'idle'"
    with contextlib.closing(system.postgres()) as connection, connection.cursor() as cursor:
        connection.autocommit = True

        def writes() -> bool:
            cursor.execute(query)
            return bool(cursor.fetchall()[0][0])

        with contextlib.suppress(TimeoutError, psycopg2.Error):
            wait_until(writes, "it writes", 2)


def test_out_of_disk() -> None:
    with world() as (system, oracle, feeds, _, postgres_server):
        with Load(feeds):
            let_pass(2)
            postgres_server.execute(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;"
                "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON aggregated_prices"
                " FOR EACH ROW EXECUTE FUNCTION full_disk()"
            )
            wait_until(lambda: status(system) != "ok", "health says that PostgreSQL cannot store")
            assert "No space left" in str(system.body("/health")["components"]["postgres"])
            let_pass(3)
            assert status(system) != "ok"
            postgres_server.execute("DROP FUNCTION full_disk CASCADE")
            wait_until(lambda: status(system) == "ok", "it is used again")
        check_law(system, oracle, INTERVAL)


def test_marketflow_restarted_while_it_is_away() -> None:
    with world() as (system, oracle, feeds, _, postgres_server):
        with Load(feeds):
            let_pass(2)
            postgres_server.stop()
            let_pass(3)
        check_counts(system, oracle)
        first = sum(oracle.received.values())
        assert system.terminate() == 0
        for _ in range(2):
            system.start_ready()
            assert status(system) != "ok"
            with Load(feeds):
                let_pass(2)
            sent = sum(oracle.received.values()) - first
            wait_until(lambda: system.metric("marketflow_ticks_received_total") >= sent, "all is received")  # noqa: B023 - it is called before the next round
            first += sent
            assert system.terminate() == 0
        system.start_ready()
        postgres_server.start()
        wait_stored_exactly(system, oracle, INTERVAL)
        assert "Traceback" not in system.log
