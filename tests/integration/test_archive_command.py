"""`marketflow archive`: in the database that is configured, in the embedded one, and in one that is in use."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from marketflow.adapters.embedded import EmbeddedServers
from marketflow.adapters.postgres import PostgresStore
from marketflow.domain.bar import fold
from marketflow.domain.mode import LIVE
from marketflow.domain.window import StoredWindow, WindowKey
from tests.support.postgres_server import running_server
from tests.support.system import Exit, marketflow

LONG_AGO = 1_600_000_000_000  # Unix ms


def fill(dsn: str) -> None:
    """Store a row that is past any retention."""
    with closing(PostgresStore(dsn)) as store:
        store.migrate()
        row = StoredWindow(LIVE, WindowKey("exchange1", "BTCUSDT", LONG_AGO), fold([1.0], [LONG_AGO], 0))
        store.store([row])


def archive(output: Path, env: Mapping[str, str]) -> Exit:
    return marketflow("archive", "--output", str(output), env=env)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory that PostgreSQL's user can reach where root runs the tests."""
    with TemporaryDirectory(prefix="mf-") as name:
        Path(name).chmod(0o711)
        yield Path(name) / "data"


def test_it_archives_in_the_database_that_is_configured(tmp_path: Path) -> None:
    with running_server() as server:
        fill(server.dsn)
        done = archive(tmp_path / "archive", {"MARKETFLOW_POSTGRES__DSN": server.dsn})
    assert (done.status, done.errors) == (0, "")
    assert done.output.startswith("1 rows archived: 1 files with ")
    assert len(list((tmp_path / "archive").iterdir())) == 1


def test_it_archives_in_the_embedded_database_whether_that_runs_or_not(tmp_path: Path, data_dir: Path) -> None:
    env = {"MARKETFLOW_STORAGE__DATA_DIR": str(data_dir)}
    with EmbeddedServers(data_dir, redis=False) as endpoints:
        fill(endpoints.postgres_dsn)
        running = archive(tmp_path / "running", env)
        fill(endpoints.postgres_dsn)
    assert (running.status, running.output[:16]) == (0, "1 rows archived:")
    stopped = archive(tmp_path / "stopped", env)
    assert (stopped.status, stopped.output[:16]) == (0, "1 rows archived:")
