"""MarketFlow on servers of the test's own, which it may stop, freeze and break."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import redis

from tests.support.feed_server import FeedServer
from tests.support.oracle import Oracle
from tests.support.postgres_server import PostgresServer, running_server
from tests.support.system import SYSTEMS, System, live_config
from tests.support.valkey_server import ValkeyServer, running_valkey

INTERVAL = 1_000
"""Length of a window in these tests, in ms."""


class FaultSystem(System):
    """A system whose servers are the test's, where it has any."""

    def __init__(
        self, directory: Path, config: Any, valkey: ValkeyServer | None, postgres_server: PostgresServer | None
    ) -> None:
        self._valkey = valkey
        self._postgres_server = postgres_server
        super().__init__(directory, config)

    def postgres(self) -> Any:
        """Return a connection to PostgreSQL."""
        return super().postgres() if self._postgres_server is None else psycopg2.connect(self._postgres_server.dsn)

    def redis(self) -> "redis.Redis":
        """Return a client of Redis."""
        return super().redis() if self._valkey is None else redis.Redis.from_url(self._valkey.url)

    def nodes(self) -> list[psutil.Process]:
        """Return the processes that host a node: the workers of gunicorn."""
        found = []
        for process in self.own_processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = process.parent()
                if _serves(process) and parent is not None and _serves(parent):
                    found.append(process)
        return found

    def own_processes(self) -> list[psutil.Process]:
        """Return what descends from the process that was started."""
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children(recursive=True)
        return []


def _serves(process: psutil.Process) -> bool:
    return "marketflow.server" in process.cmdline()


@contextlib.contextmanager
def fault_system(
    feeds: Sequence[FeedServer],
    valkey: ValkeyServer | None = None,
    postgres_server: PostgresServer | None = None,
    interval: str = "1s",
    **sections: dict[str, Any],
) -> Iterator[FaultSystem]:
    """Give MarketFlow a directory of its own, and these servers; it is not started yet."""
    # Not in pytest's own directory: the path of a unix socket may have 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="mf-"))
    directory.chmod(0o711)  # where root runs the tests, PostgreSQL runs as another user
    config = live_config(feeds, interval)
    if valkey is not None:
        config["redis"] = {"url": valkey.url}
    if postgres_server is not None:
        config["postgres"] = {"dsn": postgres_server.dsn}
    system = FaultSystem(directory, config | sections, valkey, postgres_server)
    try:
        yield system
    except BaseException:
        print(system.log_shown)
        raise
    finally:
        system.kill()
        SYSTEMS.remove(system)
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def exchanges(oracle: Oracle, count: int = 3) -> Iterator[list[FeedServer]]:
    """Serve exchanges that note what they send."""
    feeds = [FeedServer(f"exchange{number}", oracle) for number in range(1, count + 1)]
    try:
        yield feeds
    finally:
        for feed in feeds:
            feed.close()


@contextlib.contextmanager
def world(*valkey_options: str) -> Iterator[tuple[FaultSystem, Oracle, list[FeedServer], ValkeyServer, PostgresServer]]:
    """Run everything: three exchanges, servers of the test's own, and MarketFlow on them, ready to serve."""
    oracle = Oracle()
    with (
        running_valkey(*valkey_options) as valkey,
        running_server() as postgres_server,
        exchanges(oracle) as feeds,
        fault_system(feeds, valkey, postgres_server) as system,
    ):
        system.start_ready()
        for feed in feeds:
            feed.wait_connected()
        yield system, oracle, feeds, valkey, postgres_server
