"""The window store: writes, loads and sums up the rows of aggregated_prices."""

import io
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from psycopg2 import errors
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names this class in lower case

from marketflow.adapters.postgres import migrate, partitions, queries
from marketflow.adapters.postgres.connection import connect, prepare, validate
from marketflow.adapters.postgres.faults import refusal
from marketflow.adapters.postgres.pool import Pool
from marketflow.adapters.postgres.rows import copy_rows, instant, window_of
from marketflow.domain.mode import Mode
from marketflow.domain.summary import Summary
from marketflow.domain.view import Latest
from marketflow.domain.window import StoredWindow
from marketflow.errors import StartupError, Unavailable

T = TypeVar("T")

OLDEST_SERVER = 15
_READERS = 3
_ROWS_AT_ONCE = 500
_MIGRATION_TIMEOUT_S = 60.0


class PostgresStore:
    """`marketflow.ports.WindowStore` on a PostgreSQL server, 15 or newer.

    Opens connections when they are needed, four at most, and again after a failure. Each call waits cooperatively and
    raises `Unavailable` after `store_timeout` (store, load) or `query_timeout` seconds.
    """

    def __init__(self, dsn: str, store_timeout: float = 5.0, query_timeout: float = 2.0) -> None:
        """Connect to nothing yet. Raises ConfigurationError when libpq cannot read the connection string."""
        self._dsn = validate(dsn)
        self._writer = Pool(dsn, 1, store_timeout)
        self._readers = Pool(dsn, _READERS, query_timeout)
        self._store_timeout = store_timeout
        self._migrated = False
        self._months: set[partitions.Month] = set()

    def check(self) -> None:
        """Return when the server lets us do all that we need. Raises StartupError, one line, when it refuses or is too
        old, and Unavailable when it is away."""
        try:
            version, may_create, may_use_temporary, is_owner = self._readers.run(_abilities)
        except Unavailable as error:
            refused = refusal(error.__cause__)
            if refused is None:
                raise
            raise StartupError(f"PostgreSQL refuses: {refused}") from error
        if version < OLDEST_SERVER:
            raise StartupError(f"PostgreSQL {OLDEST_SERVER} or newer is needed; the server is {version}")
        if not may_create:
            raise StartupError("PostgreSQL: the role needs the privilege CREATE on its schema")
        if not may_use_temporary:
            raise StartupError("PostgreSQL: the role needs the privilege TEMPORARY on its database")
        if not is_owner:
            raise StartupError("PostgreSQL: the role must own the table aggregated_prices")

    def migrate(self) -> None:
        """Bring the schema up to date. Raises Unavailable; `store` and `load` do it too until it has succeeded once."""

        def open_for_migration() -> Connection:
            connection = connect(self._dsn, self._store_timeout)
            prepare(connection, _MIGRATION_TIMEOUT_S)
            return connection

        if not self._writer.run(migrate.is_current):
            self._writer.run(lambda connection: migrate.apply(connection, open_for_migration), _MIGRATION_TIMEOUT_S)
        self._migrated = True

    def store(self, windows: Sequence[StoredWindow]) -> None:
        """See `WindowStore.store`."""
        if not windows:
            return
        months = partitions.months_of({window.key.start for window in windows})

        def write(connection: Connection) -> None:
            rows = copy_rows(windows)
            with connection.cursor() as cursor:
                missing = months - self._months
                partitions.create(cursor, missing)
                self._months |= missing
                cursor.execute(queries.CREATE_INCOMING)
                cursor.copy_expert(queries.COPY_INCOMING, io.BytesIO(rows), size=65536)
                cursor.execute(queries.MERGE_INCOMING)

        self._on_writer(write)

    def load(self, mode: Mode, exchange: str, since: int) -> list[StoredWindow]:
        """See `WindowStore.load`."""

        def read(connection: Connection) -> list[StoredWindow]:
            windows: list[StoredWindow] = []
            with connection.cursor() as cursor:
                cursor.execute(queries.LOAD, {"mode": mode, "exchange": exchange, "since": instant(since)})
                # In portions: while psycopg2 converts rows nothing else runs.
                while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                    windows.extend(window_of(mode, exchange, row) for row in rows)
            return windows

        return self._on_writer(read)

    def summarize(
        self,
        mode: Mode,
        symbol: str,
        exchange: str | None,
        start: int,
        end: int,
        without: Collection[tuple[str, int]],
    ) -> dict[str, Summary]:
        """See `WindowStore.summarize`."""
        left_out = [key for key in without if start <= key[1] < end]
        query = queries.SUMMARIZE
        if exchange is not None:
            query += queries.OF_EXCHANGE
        if left_out:
            query += queries.WITHOUT
        rows = self._select(
            query + queries.BY_EXCHANGE,
            {
                "mode": mode,
                "symbol": symbol,
                "exchange": exchange,
                "start": instant(start),
                "end": instant(end),
                "without_exchanges": [name for name, _ in left_out],
                "without_starts": [instant(time) for _, time in left_out],
            },
        )
        return {
            name: Summary(high[0], -int(high[1]), low[0], int(low[1]), total, count)
            for name, high, low, total, count in rows
        }

    def latest(self, mode: Mode, symbol: str, exchange: str | None) -> dict[str, Latest]:
        """See `WindowStore.latest`."""
        query = queries.LATEST if exchange is None else queries.LATEST_OF_EXCHANGE
        rows = self._select(query, {"mode": mode, "symbol": symbol, "exchange": exchange})
        return {name: Latest(price, time) for name, price, time in rows}

    def ping(self) -> None:
        """See `WindowStore.ping`."""
        self._select("SELECT 1", {})

    def close(self) -> None:
        """Close the connections; calls under way fail with Unavailable, and so do later ones. Idempotent."""
        self._writer.close()
        self._readers.close()

    def _select(self, query: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        def read(connection: Connection) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor:
                cursor.execute(query, values)
                return cursor.fetchall()

        return self._readers.run(read)

    def _on_writer(self, job: Callable[[Connection], T]) -> T:
        if not self._migrated:
            self.migrate()
        try:
            return self._writer.run(job)
        except Unavailable as error:
            # The database was replaced by another one, or a partition archived: what we know of it is no longer so.
            if isinstance(error.__cause__, errors.UndefinedTable | errors.CheckViolation):
                self._migrated = False
                self._months = set()
            raise


def _abilities(connection: Connection) -> tuple[int, bool, bool, bool]:
    with connection.cursor() as cursor:
        cursor.execute(queries.ABILITIES)
        version, may_create, may_use_temporary, is_owner = cursor.fetchall()[0]
        return version, may_create, may_use_temporary, is_owner
