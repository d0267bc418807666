"""The window store while its server is away, frozen, restarted or out of disk, and afterwards."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import gevent
import gevent.event
import psycopg2
import pytest
from gevent import Timeout

from marketflow.adapters.postgres import PostgresStore
from marketflow.domain.bar import fold
from marketflow.domain.mode import LIVE
from marketflow.domain.window import StoredWindow, WindowKey
from marketflow.errors import Unavailable
from tests.support.postgres_server import PostgresServer, running_server

NOON = 1_763_812_800_000
STORE_TIMEOUT = 1.0
QUERY_TIMEOUT = 0.5
SLACK = 1.5  # the machine is busy


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def store(server: PostgresServer) -> Iterator[PostgresStore]:
    server.empty()
    opened = PostgresStore(server.dsn, store_timeout=STORE_TIMEOUT, query_timeout=QUERY_TIMEOUT)
    opened.migrate()
    opened.store([window(NOON)])
    yield opened
    opened.close()


def window(start: int, symbol: str = "BTCUSDT") -> StoredWindow:
    return StoredWindow(LIVE, WindowKey("exchange1", symbol, start), fold([1.0], [start], 0))


def eventually(call: Callable[[], object]) -> None:
    """Call until it does not raise Unavailable any more, for five seconds."""
    deadline = time.monotonic() + 5
    while True:
        try:
            call()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
        else:
            return


def unavailable_within(seconds: float, call: Callable[[], object]) -> str:
    """Return what Unavailable says, which must be raised in time."""
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"^PostgreSQL: ") as caught:
        call()
    assert time.monotonic() - started < seconds + SLACK
    return str(caught.value)


@contextmanager
def rows_locked(server: PostgresServer) -> Iterator[None]:
    """While it is open, nobody else can read or write the table."""
    with closing(psycopg2.connect(server.dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE aggregated_prices IN ACCESS EXCLUSIVE MODE")
        yield


def wait_for_waiter(server: PostgresServer) -> None:
    """Return when a session of ours waits for a lock."""
    deadline = time.monotonic() + 5
    query = "SELECT FROM pg_stat_activity WHERE application_name = 'marketflow' AND wait_event_type = 'Lock'"
    while not server.execute(query):
        assert time.monotonic() < deadline
        gevent.idle()


def test_a_server_that_is_away_is_unavailable_until_it_is_back(server: PostgresServer, store: PostgresStore) -> None:
    server.stop()
    calls: list[Callable[[], object]] = [
        lambda: store.store([window(NOON)]),
        lambda: store.load(LIVE, "exchange1", NOON),
        lambda: store.summarize(LIVE, "BTCUSDT", None, NOON, NOON + 1, ()),
        lambda: store.latest(LIVE, "BTCUSDT", None),
        store.ping,
        store.check,
        store.migrate,
    ]
    for call in calls:
        unavailable_within(0, call)
    server.start()
    for call in calls:
        call()


def test_a_restart_between_two_calls_is_not_noticed(server: PostgresServer, store: PostgresStore) -> None:
    gevent.joinall([gevent.spawn(store.ping) for _ in range(10)], raise_error=True)
    server.stop()
    server.start()
    store.store([window(NOON + 1)])
    gevent.joinall([gevent.spawn(store.ping) for _ in range(10)], raise_error=True)


def test_a_store_that_starts_before_its_server_needs_no_help(server: PostgresServer) -> None:
    server.empty()
    server.stop()
    with closing(PostgresStore(server.dsn)) as early:
        unavailable_within(0, lambda: early.store([window(NOON)]))
        server.start()
        early.store([window(NOON)])
        assert len(early.load(LIVE, "exchange1", NOON)) == 1


@pytest.mark.parametrize("end", [PostgresServer.stop, PostgresServer.kill])
def test_ended_in_mid_write_the_rows_are_there_once_after_another_try(
    server: PostgresServer, store: PostgresStore, end: Callable[[PostgresServer], None]
) -> None:
    windows = [window(NOON, f"S{n}") for n in range(2000)]
    with rows_locked(server):
        writing = gevent.spawn(store.store, windows)
        wait_for_waiter(server)
        end(server)
    with pytest.raises(Unavailable):
        writing.get(timeout=5)
    server.start()
    store.store(windows)
    assert len(store.load(LIVE, "exchange1", NOON)) == 2001


def test_a_frozen_server_is_unavailable_in_time_and_again_and_again(
    server: PostgresServer, store: PostgresStore
) -> None:
    server.freeze()
    try:
        for _ in range(2):
            readers = [gevent.spawn(unavailable_within, 2 * QUERY_TIMEOUT, store.ping) for _ in range(10)]
            unavailable_within(2 * STORE_TIMEOUT, lambda: store.store([window(NOON + 1)]))
            gevent.joinall(readers, raise_error=True)
    finally:
        server.thaw()
    eventually(lambda: store.store([window(NOON + 1)]))
    eventually(store.ping)
    gevent.joinall([gevent.spawn(store.ping) for _ in range(20)], raise_error=True)
    assert len(store.load(LIVE, "exchange1", NOON)) == 2


def test_frozen_sessions_are_given_up_for_new_ones(server: PostgresServer, store: PostgresStore) -> None:
    gevent.joinall([gevent.spawn(store.ping) for _ in range(10)], raise_error=True)
    server.freeze_sessions("marketflow")
    try:
        unavailable_within(STORE_TIMEOUT, lambda: store.store([window(NOON + 1)]))
        for reader in [gevent.spawn(unavailable_within, QUERY_TIMEOUT, store.ping) for _ in range(3)]:
            reader.get()
        store.store([window(NOON + 1)])
        gevent.joinall([gevent.spawn(store.ping) for _ in range(10)], raise_error=True)
    finally:
        server.thaw()


def test_a_server_that_accepts_and_says_nothing_is_unavailable_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        dsn = f"postgresql://x:s3cret@127.0.0.1:{listening.getsockname()[1]}/x"
        with closing(PostgresStore(dsn, store_timeout=STORE_TIMEOUT, query_timeout=QUERY_TIMEOUT)) as mute:
            assert "s3cret" not in unavailable_within(QUERY_TIMEOUT, mute.ping)
            assert "s3cret" not in unavailable_within(STORE_TIMEOUT, mute.migrate)
            assert "s3cret" not in unavailable_within(QUERY_TIMEOUT, mute.check)


def test_a_full_disk_is_unavailable_until_there_is_room(server: PostgresServer, store: PostgresStore) -> None:
    server.execute("""
        CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON aggregated_prices FOR EACH ROW EXECUTE FUNCTION full_disk()
    """)
    said = unavailable_within(0, lambda: store.store([window(NOON + 1)]))
    assert said == "PostgreSQL: could not extend file: No space left on device"
    assert len(store.load(LIVE, "exchange1", NOON)) == 1
    server.execute("DROP TRIGGER full_disk ON aggregated_prices")
    store.store([window(NOON + 1)])
    assert len(store.load(LIVE, "exchange1", NOON)) == 2


def test_a_locked_table_is_unavailable_in_time_and_the_hub_goes_on(
    server: PostgresServer, store: PostgresStore
) -> None:
    with rows_locked(server):
        query = gevent.spawn(unavailable_within, QUERY_TIMEOUT, lambda: store.latest(LIVE, "BTCUSDT", None))
        wait_for_waiter(server)  # which needs the hub
        query.get(timeout=5)
    assert list(store.latest(LIVE, "BTCUSDT", None)) == ["exchange1"]


def test_a_caller_that_gives_up_frees_its_connection(server: PostgresServer, store: PostgresStore) -> None:
    with rows_locked(server):
        for _ in range(4):
            with pytest.raises(Timeout), Timeout(0.02):
                store.latest(LIVE, "BTCUSDT", None)
        killed = gevent.spawn(store.store, [window(NOON)])
        wait_for_waiter(server)
        killed.kill(timeout=5)
        assert killed.dead
    store.store([window(NOON + 1)])
    gevent.joinall([gevent.spawn(store.ping) for _ in range(6)], raise_error=True)


def test_a_new_database_in_the_place_of_the_old_one_is_migrated(server: PostgresServer, store: PostgresStore) -> None:
    server.empty()
    unavailable_within(0, lambda: store.latest(LIVE, "BTCUSDT", None))
    unavailable_within(0, lambda: store.store([window(NOON)]))
    store.store([window(NOON)])
    assert len(store.load(LIVE, "exchange1", NOON)) == 1


def test_a_partition_that_was_archived_comes_back_for_a_late_window(
    server: PostgresServer, store: PostgresStore
) -> None:
    server.execute("DROP TABLE aggregated_prices_2025_11")
    unavailable_within(0, lambda: store.store([window(NOON)]))
    store.store([window(NOON)])
    assert len(store.load(LIVE, "exchange1", NOON)) == 1


def test_a_fault_of_our_own_is_raised_as_it_is_and_does_no_harm(store: PostgresStore) -> None:
    with pytest.raises(psycopg2.DataError):
        store.store([window(NOON, "NUL\0")])
    store.store([window(NOON + 1)])
    assert len(store.load(LIVE, "exchange1", NOON)) == 2


def test_a_closed_store_is_unavailable(server: PostgresServer, store: PostgresStore) -> None:
    with rows_locked(server):
        query = gevent.spawn(store.latest, LIVE, "BTCUSDT", None)
        wait_for_waiter(server)
        store.close()
    with pytest.raises(Unavailable):
        query.get(timeout=5)
    store.close()
    unavailable_within(0, store.ping)
    unavailable_within(0, lambda: store.store([window(NOON)]))
    deadline = time.monotonic() + 5
    while server.execute("SELECT FROM pg_stat_activity WHERE application_name = 'marketflow'"):
        assert time.monotonic() < deadline
