"""Archiving rows past the retention: what is in the files, what is left, and that no interruption loses a row."""

import csv
import gzip
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg2
import pytest
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names this class in lower case

from marketflow.adapters.postgres import PostgresStore
from marketflow.adapters.postgres.archive import COLUMNS, ArchiveReport, archive
from marketflow.adapters.postgres.partitions import ARCHIVE_LOCK
from marketflow.domain.bar import fold
from marketflow.domain.mode import LIVE
from marketflow.domain.window import StoredWindow, WindowKey
from marketflow.errors import StartupError, Unavailable
from tests.support.postgres_server import PostgresServer, running_server

DAY = 86_400_000
OCTOBER = 1_759_276_800_000  # 2025-10-01 00:00 UTC
NOVEMBER = OCTOBER + 31 * DAY
DECEMBER = NOVEMBER + 30 * DAY


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def dsn(server: PostgresServer) -> str:
    server.empty()
    return server.dsn


@pytest.fixture
def store(dsn: str) -> Iterator[PostgresStore]:
    opened = PostgresStore(dsn)
    opened.migrate()
    yield opened
    opened.close()


class Held(NamedTuple):
    """An archiving under way and the session that holds it up."""

    cursor: Cursor
    report: Future[ArchiveReport]


def window(start: int, *prices: float, exchange: str = "exchange1") -> StoredWindow:
    return StoredWindow(LIVE, WindowKey(exchange, "BTCUSDT", start), fold(list(prices), [start] * len(prices), 0))


def execute(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return [] if cursor.description is None else cursor.fetchall()


def starts(dsn: str) -> list[int]:
    rows = execute(dsn, "SELECT (extract(epoch FROM window_start) * 1000)::bigint FROM aggregated_prices ORDER BY 1")
    return [int(str(start)) for (start,) in rows]


def partitions(dsn: str) -> list[str]:
    rows = execute(
        dsn,
        """SELECT inhrelid::regclass::text FROM pg_inherits
        WHERE inhparent = 'aggregated_prices'::regclass ORDER BY 1""",
    )
    return [str(name) for (name,) in rows]


def restore(dsn: str, path: Path) -> None:
    """As docs/database.md says."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor, gzip.open(path) as file:
        cursor.copy_expert(f"COPY aggregated_prices ({', '.join(COLUMNS)}) FROM STDIN (FORMAT csv, HEADER)", file)
        connection.commit()


def contents(path: Path) -> list[list[str]]:
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.reader(file))


def test_whole_months_are_dropped_and_the_rest_is_deleted(dsn: str, store: PostgresStore, tmp_path: Path) -> None:
    kept = [NOVEMBER + 2 * DAY, DECEMBER]
    store.store([window(start, 1.5, 2.5) for start in (OCTOBER, NOVEMBER - 1, NOVEMBER, NOVEMBER + 2 * DAY - 1, *kept)])
    report = archive(dsn, 10 * DAY, tmp_path / "archive", now=NOVEMBER + 12 * DAY)
    files = [tmp_path / "archive" / f"aggregated_prices_2025_{month}.csv.gz" for month in (10, 11)]
    assert report == (tuple(files), 4, sum(path.stat().st_size for path in files))
    assert sorted((tmp_path / "archive").iterdir()) == files
    assert starts(dsn) == kept
    assert partitions(dsn) == ["aggregated_prices_2025_11", "aggregated_prices_2025_12"]
    header, first, _ = contents(files[0])
    assert tuple(header) == COLUMNS
    assert first[:4] + first[5:8] == ["live", "exchange1", "BTCUSDT", "2025-10-01 00:00:00+00", "2", "1.5", "2.5"]


def test_what_is_restored_is_what_was_archived(dsn: str, store: PostgresStore, tmp_path: Path) -> None:
    store.store([window(OCTOBER + n * 250, 1 / (n + 3), n * 1e9 + 0.1, exchange=f'e{n % 2},"é\n') for n in range(5000)])
    before = execute(dsn, "SELECT * FROM aggregated_prices ORDER BY exchange, window_start")
    assert archive(dsn, 0, tmp_path, now=DECEMBER).rows == 5000
    assert partitions(dsn) == []
    execute(
        dsn,
        """CREATE TABLE aggregated_prices_2025_10 PARTITION OF aggregated_prices
        FOR VALUES FROM ('2025-10-01 00:00:00+00') TO ('2025-11-01 00:00:00+00')""",
    )
    restore(dsn, tmp_path / "aggregated_prices_2025_10.csv.gz")
    assert execute(dsn, "SELECT * FROM aggregated_prices ORDER BY exchange, window_start") == before


def test_nothing_past_the_retention_is_no_work(dsn: str, store: PostgresStore, tmp_path: Path) -> None:
    store.store([window(NOVEMBER, 1.0)])
    assert archive(dsn, DAY, tmp_path, now=NOVEMBER + DAY) == ((), 0, 0)
    assert list(tmp_path.iterdir()) == []
    assert starts(dsn) == [NOVEMBER]


def test_the_time_of_day_is_the_default(dsn: str, store: PostgresStore, tmp_path: Path) -> None:
    store.store([window(NOVEMBER, 1.0), window(4_102_444_800_000, 1.0)])
    assert archive(dsn, 0, tmp_path).rows == 1
    assert starts(dsn) == [4_102_444_800_000]


def test_a_month_that_expires_bit_by_bit_gathers_in_one_file(dsn: str, store: PostgresStore, tmp_path: Path) -> None:
    store.store([window(NOVEMBER + day * DAY, 1.0 + day) for day in range(3)])
    for day in (1, 2, 3):
        assert archive(dsn, 0, tmp_path, now=NOVEMBER + day * DAY).rows == 1
    (path,) = tmp_path.iterdir()
    assert [row[6] for row in contents(path)[1:]] == ["1", "2", "3"]
    # A late row of a window that is archived, and one of a window that is not.
    store.store([window(NOVEMBER, 8.0, 9.0), window(NOVEMBER + 1, 5.0)])
    archive(dsn, 0, tmp_path, now=DECEMBER)
    assert [(row[6], row[10]) for row in contents(path)[1:]] == [("8", "2"), ("5", "1"), ("2", "1"), ("3", "1")]
    assert partitions(dsn) == []


def test_interrupted_before_the_commit_it_is_done_again_with_the_same_bytes(
    dsn: str, store: PostgresStore, tmp_path: Path
) -> None:
    store.store([window(OCTOBER, 1.0), window(OCTOBER + DAY, 2.0)])
    # Everything succeeds but the drop, as if the process had been killed before it.
    execute(dsn, "CREATE VIEW dependent AS SELECT * FROM aggregated_prices_2025_10")
    with pytest.raises(Unavailable, match="other objects depend on it"):
        archive(dsn, 0, tmp_path, now=NOVEMBER)
    assert len(starts(dsn)) == 2
    (path,) = tmp_path.iterdir()
    written = path.read_bytes()
    path.with_name(f"{path.name}.partial").write_bytes(b"left by a kill in mid-write")
    execute(dsn, "DROP VIEW dependent")
    assert archive(dsn, 0, tmp_path, now=NOVEMBER).rows == 2
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == written
    assert partitions(dsn) == []


def test_a_file_that_cannot_be_written_costs_no_row(dsn: str, store: PostgresStore, tmp_path: Path) -> None:
    store.store([window(OCTOBER, 1.0)])
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match=r"^archive: .*file"):
        archive(dsn, 0, tmp_path / "file", now=NOVEMBER)
    assert starts(dsn) == [OCTOBER]


@pytest.mark.parametrize(
    "damage",
    [b"", b"no gzip", gzip.compress(b"other,columns\n"), gzip.compress(",".join(COLUMNS).encode() + b"\n")[:-9]],
    ids=["empty", "no gzip", "other columns", "cut off"],
)
def test_a_file_of_somebody_else_is_left_alone(dsn: str, store: PostgresStore, tmp_path: Path, damage: bytes) -> None:
    store.store([window(OCTOBER, 1.0)])
    path = tmp_path / "aggregated_prices_2025_10.csv.gz"
    path.write_bytes(damage)
    with pytest.raises(StartupError, match=r"^archive: .*2025_10\.csv\.gz: "):
        archive(dsn, 0, tmp_path, now=NOVEMBER)
    assert path.read_bytes() == damage
    assert starts(dsn) == [OCTOBER]


def test_one_archiving_at_a_time(dsn: str, store: PostgresStore, tmp_path: Path) -> None:
    store.store([window(OCTOBER, 1.0)])
    with closing(psycopg2.connect(dsn)) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (ARCHIVE_LOCK,))
        with pytest.raises(StartupError, match="another one is under way"):
            archive(dsn, 0, tmp_path, now=NOVEMBER)
    assert archive(dsn, 0, tmp_path, now=NOVEMBER).rows == 1


@contextmanager
def archiving_held_up(server: PostgresServer, directory: Path, now: int, lock: str) -> Iterator[Held]:
    """An archiving that waits for `lock` on the partition of October, held by a session that is given."""
    with (
        ThreadPoolExecutor() as threads,
        closing(psycopg2.connect(server.dsn)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(f"LOCK TABLE aggregated_prices_2025_10 IN {lock} MODE")
        report = threads.submit(archive, server.dsn, 0, directory, now)
        deadline = time.monotonic() + 5
        while not server.execute("SELECT FROM pg_locks WHERE NOT granted"):
            assert time.monotonic() < deadline
        yield Held(cursor, report)


LATE_ROW = """
    INSERT INTO aggregated_prices
    SELECT mode, pair_name, exchange, window_start + interval '1 h', timestamp, average_price, min_price, max_price,
        open_price, close_price, tick_count, open_time, close_time, high_time, low_time, total_price
    FROM aggregated_prices LIMIT 1
"""


def test_a_late_row_for_a_month_that_is_being_dropped_is_archived(
    server: PostgresServer, dsn: str, store: PostgresStore, tmp_path: Path
) -> None:
    store.store([window(OCTOBER, 1.0)])
    with archiving_held_up(server, tmp_path, NOVEMBER, "ROW EXCLUSIVE") as held:
        held.cursor.execute(LATE_ROW)
        held.cursor.connection.commit()
        assert held.report.result(timeout=10).rows == 2
    assert starts(dsn) == []


def test_a_late_row_for_a_month_that_is_being_cut_stays(
    server: PostgresServer, dsn: str, store: PostgresStore, tmp_path: Path
) -> None:
    store.store([window(OCTOBER, 1.0)])
    with archiving_held_up(server, tmp_path, OCTOBER + DAY, "SHARE") as held:
        held.cursor.execute(LATE_ROW)
        held.cursor.connection.commit()
        assert held.report.result(timeout=10).rows == 1
    assert starts(dsn) == [OCTOBER + DAY // 24]


def test_rows_amended_while_they_are_archived_stay(
    server: PostgresServer, dsn: str, store: PostgresStore, tmp_path: Path
) -> None:
    store.store([window(OCTOBER, 1.0)])
    with archiving_held_up(server, tmp_path, OCTOBER + DAY, "SHARE") as held:
        held.cursor.execute("UPDATE aggregated_prices SET tick_count = 2")
        held.cursor.connection.commit()
        with pytest.raises(Unavailable, match="could not serialize access"):
            held.report.result(timeout=10)
    assert starts(dsn) == [OCTOBER]


def test_a_server_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"^PostgreSQL: "):
        archive(f"postgresql://x@/x?host={tmp_path}", 0, tmp_path)
