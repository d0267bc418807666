"""The partitions of aggregated_prices: one for each month (UTC) of window_start, made when its first rows come."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names this class in lower case

from marketflow.adapters.postgres.rows import instant, unix_ms

LOCK = 0x4D_61_72_6B_65_74  # "Market"
"""Key of the advisory lock under which the schema is changed; it goes with the session that holds it."""
ARCHIVE_LOCK = LOCK + 1
"""Key of the advisory lock under which rows are archived."""

_NAME = re.compile(r"aggregated_prices_([0-9]{4})_([0-9]{2})")


class Month(NamedTuple):
    """A month of UTC."""

    year: int
    month: int

    @property
    def table(self) -> str:
        """Name of the partition."""
        return f"aggregated_prices_{self.year:04}_{self.month:02}"

    @property
    def start(self) -> int:
        """Its first instant, Unix ms."""
        return unix_ms(datetime(self.year, self.month, 1, tzinfo=UTC))

    @property
    def next(self) -> "Month":
        """The month after."""
        return Month(self.year + self.month // 12, self.month % 12 + 1)


def months_of(starts: Iterable[int]) -> set[Month]:
    """Return the months that windows with these starts (Unix ms) are in."""
    return {Month(day.year, day.month) for day in map(instant, set(starts))}


def month_of_table(name: str) -> Month | None:
    """Return the month of a partition, None for a table that was not made here."""
    match = _NAME.fullmatch(name)
    return None if match is None else Month(int(match[1]), int(match[2]))


def create(cursor: Cursor, months: Iterable[Month]) -> None:
    """Create the partitions that are missing, safely beside other processes that do the same. Raises psycopg2.Error."""
    for month in sorted(months):
        # Attaching lets reads and writes of the other partitions go on, unlike CREATE TABLE ... PARTITION OF.
        cursor.execute("BEGIN; SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        cursor.execute("SELECT to_regclass(%s) IS NULL", (month.table,))
        if _scalar(cursor):
            cursor.execute(
                f"CREATE TABLE {month.table} (LIKE aggregated_prices INCLUDING ALL);"
                f"ALTER TABLE aggregated_prices ATTACH PARTITION {month.table}"
                f" FOR VALUES FROM (%s) TO (%s)",
                (instant(month.start), instant(month.next.start)),
            )
        cursor.execute("COMMIT")


def _scalar(cursor: Cursor) -> object:
    row = cursor.fetchone()
    return None if row is None else row[0]
