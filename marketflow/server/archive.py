"""Archiving as a command: in the database that is configured, or in the embedded one, which is started if need be."""

from pathlib import Path

from marketflow import logs
from marketflow.adapters.embedded import EmbeddedServers, InUse, running_postgres
from marketflow.adapters.postgres.archive import ArchiveReport, archive
from marketflow.config import Settings


def run(settings: Settings, directory: Path) -> ArchiveReport:
    """Move the rows past the retention into files in `directory`. Raises StartupError, Unavailable."""
    logs.configure(settings.log.level, settings.log.format)
    retention = settings.storage.retention
    if dsn := settings.postgres.dsn.get_secret_value():
        return archive(dsn, retention, directory)
    try:
        with EmbeddedServers(settings.storage.data_dir, redis=False) as endpoints:
            return archive(endpoints.postgres_dsn, retention, directory)
    except InUse:
        return archive(running_postgres(settings.storage.data_dir), retention, directory)
