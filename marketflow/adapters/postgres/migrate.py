"""Bringing the schema up to date with yoyo, from the SQL files in migrations/, beside other processes."""

import logging
import socket
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names this class in lower case
from yoyo.backends.core.postgresql import PostgresqlBackend  # type: ignore[import-untyped]  # yoyo has no types
from yoyo.connections import DatabaseURI  # type: ignore[import-untyped]  # as above
from yoyo.migrations import (  # type: ignore[import-untyped]  # as above
    default_migration_table,
    read_migrations,
)

from marketflow.adapters.postgres.partitions import LOCK

_DIRECTORY = Path(__file__).parent / "migrations"

# Migrations run in a native thread; the locks of the process's log handlers belong to the hub's.
logging.getLogger("yoyo").propagate = False


def is_current(connection: Connection) -> bool:
    """Tell whether every migration is applied. Cheap: two queries. Raises psycopg2.Error."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (default_migration_table,))
        if not cursor.fetchall()[0][0]:
            return False
        cursor.execute(f"SELECT migration_id FROM {default_migration_table}")  # noqa: S608 - a constant of yoyo
        return {path.stem for path in _DIRECTORY.glob("*.sql")} <= {row[0] for row in cursor.fetchall()}


def apply(connection: Connection, connect: Callable[[], Connection]) -> None:
    """Apply what is missing. `connection` holds the lock, `connect` opens those for yoyo. Raises psycopg2.Error."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        try:
            if not is_current(connection):
                _apply_all(connect)
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))


def _apply_all(connect: Callable[[], Connection]) -> None:
    backend = _backend(connect)
    with closing(backend.connection):
        backend.init_database()
        # Whoever left yoyo's own lock is dead: the living ones hold the advisory lock, which we do.
        backend.break_lock()
        with backend.lock():
            backend.apply_migrations(backend.to_apply(read_migrations(str(_DIRECTORY))))


def _backend(connect: Callable[[], Connection]) -> PostgresqlBackend:
    class Backend(PostgresqlBackend):  # type: ignore[misc]  # yoyo has no types
        """yoyo on connections of ours, since it reads fewer connection strings than libpq does."""

        def connect(self, dburi: Any) -> Connection:  # noqa: ARG002 - `connect` knows it
            return connect()

        def get_log_data(self, migration: Any = None, operation: str = "apply") -> dict[str, Any]:
            # As in the base class, which fails for a user without a name and asks DNS for the host's.
            return {
                "id": str(uuid.uuid4()),
                "migration_id": migration.id if migration else None,
                "migration_hash": migration.hash if migration else None,
                "username": "marketflow",
                "hostname": socket.gethostname(),
                "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
                "operation": operation,
            }

    return Backend(DatabaseURI("postgresql", None, None, None, None, "", {}), default_migration_table)
