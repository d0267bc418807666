"""Archiving: rows past the retention go to compressed CSV, one file for each month, and then out of the table."""

import csv
import gzip
import io
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from heapq import merge
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, TypeAlias

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names this class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - as above

from marketflow.adapters.postgres.connection import connect, prepare, validate
from marketflow.adapters.postgres.faults import unavailable
from marketflow.adapters.postgres.partitions import ARCHIVE_LOCK, Month, month_of_table
from marketflow.adapters.postgres.rows import instant
from marketflow.errors import StartupError

Row: TypeAlias = tuple[str, ...]

COLUMNS = (
    *("mode", "exchange", "pair_name", "window_start", "timestamp", "average_price", "min_price", "max_price"),
    *("open_price", "close_price", "tick_count", "open_time", "close_time", "high_time", "low_time", "total_price"),
)
"""The columns of a file: the key first, by which its rows are ordered."""

_KEY = itemgetter(slice(0, 4))
_CONNECT_TIMEOUT_S = 5.0
_ROWS_AT_ONCE = 2000

_PARTITIONS = """
    SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'aggregated_prices'::regclass ORDER BY relname
"""
_EXPORT = f"""
    DECLARE expired NO SCROLL CURSOR FOR
    SELECT {", ".join(f'"{name}"::text' for name in COLUMNS)} FROM {{table}} expiring
    WHERE expiring.window_start < %s
    ORDER BY expiring.mode, expiring.exchange, expiring.pair_name, expiring.window_start
"""  # noqa: S608 - put together from constants


class ArchiveReport(NamedTuple):
    """What was archived: the files written, the rows that left the table, the bytes of the files."""

    files: tuple[Path, ...]
    rows: int
    bytes: int


def archive(dsn: str, retention_ms: int, directory: Path, now: int | None = None) -> ArchiveReport:
    """Move the rows of windows that start before `now` (Unix ms; None: the time of day) minus the retention into files.

    A row leaves the table in the transaction in which it was read, once its file is on disk: interrupted at any point
    and run again, nothing is lost and nothing is there twice. What a month's file holds already stays in it.
    Blocks the thread. Raises Unavailable when the server is away or others hold the rows, StartupError when another
    archiving is under way or a file cannot be read or written.
    """
    cutoff = (time.time_ns() // 1_000_000 if now is None else now) - retention_ms
    files: list[Path] = []
    total = 0
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with closing(connect(validate(dsn), _CONNECT_TIMEOUT_S)) as connection:
            prepare(connection, timeout=0)
            for month in _months_before(connection, cutoff):
                path = directory / f"{month.table}.csv.gz"
                rows = _archive_month(connection, month, cutoff, path)
                if rows:
                    files.append(path)
                    total += rows
    except psycopg2.Error as error:
        raise unavailable(error) or error from error
    except OSError as error:
        raise StartupError(f"archive: {error.filename or directory}: {error.strerror or error}") from error
    return ArchiveReport(tuple(files), total, sum(path.stat().st_size for path in files))


def _months_before(connection: Connection, cutoff: int) -> list[Month]:
    """The months with a partition that has begun at the cutoff, oldest first; none but us archives from now on."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", (ARCHIVE_LOCK,))
        if cursor.fetchall() == [(False,)]:
            raise StartupError("archive: another one is under way")
        cursor.execute(_PARTITIONS)
        months = [month_of_table(name) for (name,) in cursor.fetchall()]
        return [month for month in months if month is not None and month.start < cutoff]


def _archive_month(connection: Connection, month: Month, cutoff: int, path: Path) -> int:
    """Move a month's expired rows into its file and return how many there were."""
    whole = month.next.start <= cutoff
    with connection.cursor() as cursor:
        if whole:
            cursor.execute(
                f"BEGIN; SET LOCAL lock_timeout = '5s'; LOCK TABLE {month.table} IN SHARE ROW EXCLUSIVE MODE"
            )
        else:
            # One snapshot for what is read and what is deleted; a row amended in between makes the delete fail.
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute(_EXPORT.format(table=month.table), (instant(cutoff),))
        rows = _write_file(path, _fetch(cursor))
        if whole:
            cursor.execute(f"CLOSE expired; DROP TABLE {month.table}; COMMIT")
        else:
            statement = f"CLOSE expired; DELETE FROM {month.table} WHERE window_start < %s; COMMIT"  # noqa: S608 - a month
            cursor.execute(statement, (instant(cutoff),))
    return rows


def _fetch(cursor: Cursor) -> Iterator[Row]:
    while True:
        cursor.execute(f"FETCH {_ROWS_AT_ONCE} FROM expired")
        rows = cursor.fetchall()
        if not rows:
            return
        yield from rows


def _write_file(path: Path, rows: Iterator[Row]) -> int:
    """Add ordered rows to a file, all or nothing, and return their number. Of two rows for a window the one with more
    ticks is kept. The same rows make the same bytes."""
    first = next(rows, None)
    if first is None:
        return 0
    count = 0

    def counted() -> Iterator[Row]:
        nonlocal count
        for row in chain([first], rows):
            count += 1
            yield row

    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        with (
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
            io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
        ):
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(_without_doubles(merge(counted(), _read_file(path), key=_KEY)))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    _sync_directory(path.parent)
    return count


def _without_doubles(rows: Iterable[Row]) -> Iterator[Row]:
    ticks = COLUMNS.index("tick_count")
    for _, same in groupby(rows, key=_KEY):
        yield max(same, key=lambda row: int(row[ticks]))


def _read_file(path: Path) -> Iterator[Row]:
    """The rows of a file, none when there is no file. Raises OSError for a file that is not an archive of ours."""
    if not path.exists():
        return
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
            rows = map(tuple, csv.reader(text))
            if next(rows, None) != COLUMNS:
                raise OSError(None, "not an archive with the columns of this version", str(path))
            yield from rows
    except (gzip.BadGzipFile, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        raise OSError(None, f"damaged: {error}", str(path)) from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
