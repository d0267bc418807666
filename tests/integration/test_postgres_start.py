"""What happens when the window store meets a database for the first time: checks, migrations, roles."""

from collections.abc import Iterator
from contextlib import closing

import gevent
import pytest

from marketflow.adapters.postgres import PostgresStore
from marketflow.domain.bar import fold
from marketflow.domain.mode import LIVE
from marketflow.domain.window import StoredWindow, WindowKey
from marketflow.errors import StartupError
from tests.support.postgres_server import VERSIONS, PostgresServer, running_server

NOON = 1_763_812_800_000
WINDOW = StoredWindow(LIVE, WindowKey("exchange1", "BTCUSDT", NOON), fold([1.0], [NOON], 0))


@pytest.fixture(scope="module", params=VERSIONS)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with running_server(request.param) as running:
        running.execute("CREATE ROLE trader LOGIN")
        running.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
        yield running


@pytest.fixture(autouse=True)
def _empty(server: PostgresServer) -> None:
    server.empty()


def refused(dsn: str) -> str:
    """Return the one line of the StartupError that `check` raises."""
    with closing(PostgresStore(dsn)) as store, pytest.raises(StartupError) as caught:
        store.check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_ordinary_owner_of_the_schema_is_enough(server: PostgresServer) -> None:
    server.empty(owner="trader")
    with closing(PostgresStore(server.dsn_of("trader", "marketflow"))) as store:
        store.check()
        store.migrate()
        store.store([WINDOW])
        store.check()
        assert len(store.load(LIVE, "exchange1", NOON)) == 1


def test_a_refused_login_is_told_in_one_line_without_the_password(server: PostgresServer) -> None:
    with_password = server.dsn_of("guarded:wr0ng", "marketflow")
    assert 'password authentication failed for user "guarded"' in refused(with_password)
    assert "wr0ng" not in refused(with_password)
    assert "no password supplied" in refused(server.dsn_of("guarded", "marketflow"))
    assert 'role "nobody-known" does not exist' in refused(server.dsn_of("nobody-known", "marketflow"))
    assert 'database "nowhere" does not exist' in refused(server.dsn_of("postgres", "nowhere"))


def test_a_role_that_may_not_create_tables_is_refused(server: PostgresServer) -> None:
    assert "CREATE on its schema" in refused(server.dsn_of("trader", "marketflow"))


def test_a_role_that_does_not_own_the_table_is_refused(server: PostgresServer) -> None:
    with closing(PostgresStore(server.dsn)) as store:
        store.migrate()
    server.execute("GRANT ALL ON SCHEMA public TO trader; GRANT ALL ON aggregated_prices TO trader")
    assert "must own the table aggregated_prices" in refused(server.dsn_of("trader", "marketflow"))


def test_a_role_without_temporary_tables_is_refused(server: PostgresServer) -> None:
    server.empty(owner="trader")
    server.execute("REVOKE TEMPORARY ON DATABASE marketflow FROM PUBLIC")
    try:
        assert "TEMPORARY on its database" in refused(server.dsn_of("trader", "marketflow"))
    finally:
        server.execute("GRANT TEMPORARY ON DATABASE marketflow TO PUBLIC")


def test_several_that_start_at_once_migrate_once(server: PostgresServer) -> None:
    stores = [PostgresStore(server.dsn) for _ in range(4)]
    gevent.joinall([gevent.spawn(store.migrate) for store in stores], raise_error=True)
    gevent.joinall([gevent.spawn(store.store, [WINDOW]) for store in stores], raise_error=True)
    for store in stores:
        store.close()
    assert server.execute("SELECT operation FROM _yoyo_log") == [("apply",)]
    assert server.execute("SELECT count(*)::int FROM aggregated_prices") == [(1,)]


def test_a_lock_left_behind_by_a_killed_process_holds_nobody_up(server: PostgresServer) -> None:
    with closing(PostgresStore(server.dsn)) as store:
        store.migrate()
        server.execute("INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, now(), 1)")
        server.execute("DROP TABLE aggregated_prices; DELETE FROM _yoyo_migration")
        store.migrate()
        store.store([WINDOW])
    assert server.execute("SELECT FROM yoyo_lock") == []


def test_a_schema_that_is_up_to_date_is_left_alone(server: PostgresServer) -> None:
    for _ in range(2):
        with closing(PostgresStore(server.dsn)) as store:
            store.migrate()
    assert len(server.execute("SELECT FROM _yoyo_log")) == 1


def test_sessions_say_who_they_are_and_keep_utc(server: PostgresServer) -> None:
    with closing(PostgresStore(server.dsn)) as store:
        store.migrate()
        store.ping()
        names = server.execute(
            "SELECT application_name FROM pg_stat_activity WHERE query LIKE '%SELECT%' AND pid <> pg_backend_pid()"
        )
        assert set(names) == {("marketflow",)}
