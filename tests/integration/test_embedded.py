"""The embedded servers: real ones, in a directory of their own, killed in all the ways that happen."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from marketflow.adapters.embedded import EmbeddedServers, Endpoints, InUse, running_postgres
from marketflow.errors import StartupError
from tests.support.waiting import wait_until

OWNER = """
import sys, threading
from pathlib import Path
from marketflow import logs
from marketflow.adapters.embedded import EmbeddedServers
logs.configure("warning")
servers = EmbeddedServers(Path(sys.argv[1]))
print(*servers.start(), *(service.pid for service in servers.services.values()), sep="\\n", flush=True)
threading.Event().wait()
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A new directory that is closed to other users, as root's home is."""
    with tempfile.TemporaryDirectory(prefix="mf-") as name:
        yield Path(name)


@contextmanager
def owned(data: Path) -> Iterator[tuple[psutil.Process, Endpoints, list[psutil.Process]]]:
    """Servers that another process owns: that process, where they are, and theirs."""
    with subprocess.Popen([sys.executable, "-c", OWNER, str(data)], stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            endpoints = Endpoints(next(owner.stdout).strip(), next(owner.stdout).strip())
            servers = [psutil.Process(int(next(owner.stdout))) for _ in range(2)]
            yield psutil.Process(owner.pid), endpoints, servers
        finally:
            owner.kill()


def runs(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that has ended may still wait for whoever inherited it."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def bump(endpoints: Endpoints) -> tuple[int, int]:
    """Add one in both servers and return what they count now."""
    with closing(redis.Redis.from_url(endpoints.redis_url)) as client:
        first = int(client.incr("counter"))
    with closing(psycopg2.connect(endpoints.postgres_dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS counter (n integer)")
            cursor.execute("INSERT INTO counter VALUES (1)")
            cursor.execute("SELECT count(*) FROM counter")
            ((second,),) = cursor.fetchall()
    return first, second


def setting(endpoints: Endpoints, name: str) -> str:
    with closing(psycopg2.connect(endpoints.postgres_dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SHOW {name}")
        return str(cursor.fetchall()[0][0])


def answers(endpoints: Endpoints) -> bool:
    try:
        bump(endpoints)
    except (redis.RedisError, psycopg2.Error):
        return False
    return True


def test_data_is_kept_from_one_start_to_the_next(directory: Path) -> None:
    for expected in (1, 2):
        with EmbeddedServers(directory / "data") as endpoints:
            assert bump(endpoints) == (expected, expected)


def test_servers_are_durable_private_and_on_sockets_alone(directory: Path) -> None:
    with EmbeddedServers(directory / "data") as endpoints:
        assert {name: setting(endpoints, name) for name in ("fsync", "synchronous_commit", "listen_addresses")} == {
            "fsync": "on",
            "synchronous_commit": "on",
            "listen_addresses": "",
        }
        assert (setting(endpoints, "server_encoding"), setting(endpoints, "lc_messages")) == ("UTF8", "C")
        with closing(redis.Redis.from_url(endpoints.redis_url, decode_responses=True)) as client:
            config = client.config_get("*")
        assert isinstance(config, dict)
        assert (config["port"], config["appendonly"], config["appendfsync"]) == ("0", "yes", "everysec")
        assert (config["save"], config["maxmemory"]) == ("", "0")
        for private in ("valkey", "postgres", "run/valkey", "run/postgres"):
            assert stat.S_IMODE((directory / "data" / private).stat().st_mode) == 0o700


@pytest.mark.parametrize("which", ["redis", "postgres"])
def test_a_server_that_is_killed_is_back_with_its_data(directory: Path, which: str) -> None:
    servers = EmbeddedServers(directory / "data")
    with servers as endpoints:
        assert bump(endpoints) == (1, 1)
        killed = servers.services[which].pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: servers.services[which].pid not in {None, killed}, "another process", 5)
        wait_until(lambda: answers(endpoints), "answers again", 5)
        first, second = bump(endpoints)
        assert first >= 3
        assert second >= 3


def test_a_killed_owner_takes_its_servers_along_and_the_next_recovers(directory: Path) -> None:
    data = directory / "data"
    with owned(data) as (owner, endpoints, servers):
        assert bump(endpoints) == (1, 1)
        with pytest.raises(InUse, match="another MarketFlow uses"):
            EmbeddedServers(data).start()
        assert running_postgres(data) == endpoints.postgres_dsn
        owner.kill()
        wait_until(lambda: not any(map(runs, servers)), "the servers have ended")
    with EmbeddedServers(data) as endpoints:
        assert bump(endpoints) == (2, 2)


def test_everything_killed_at_once_starts_again_by_itself(directory: Path) -> None:
    data = directory / "data"
    with owned(data) as (owner, endpoints, servers):
        assert bump(endpoints) == (1, 1)
        everything = [owner, *owner.children(recursive=True)]
        for act in (psutil.Process.suspend, psutil.Process.kill):  # first suspended, so that none sees another's end
            for process in everything:
                with suppress(psutil.NoSuchProcess):
                    act(process)
        wait_until(lambda: not any(map(runs, everything)), "all have ended")
    left = data / "postgres" / "postmaster.pid"
    # As if the machine had given the old process id to somebody else, as containers do.
    left.write_text(left.read_text().replace(str(servers[1].pid), str(os.getpid())))
    with EmbeddedServers(data) as endpoints:
        assert bump(endpoints) == (2, 2)


def test_an_orphan_that_holds_the_data_is_stopped_first(directory: Path) -> None:
    data = directory / "data"
    servers = EmbeddedServers(data)
    with servers as endpoints:
        assert bump(endpoints) == (1, 1)
        pid = servers.services["postgres"].pid
        assert pid is not None
        command, user = psutil.Process(pid).cmdline(), psutil.Process(pid).uids().real
    directory.chmod(0o711)
    orphan = subprocess.Popen(command, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    try:
        wait_until((data / "run" / "postgres" / ".s.PGSQL.5432").exists, "the orphan serves")
        with EmbeddedServers(data) as endpoints:
            assert orphan.wait(5) == 0
            assert bump(endpoints) == (2, 2)
    finally:
        orphan.kill()
        orphan.wait()


def test_an_interrupted_creation_is_begun_again(directory: Path) -> None:
    half = directory / "data" / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    with EmbeddedServers(directory / "data", redis=False) as endpoints:
        assert setting(endpoints, "server_version").startswith("18")
        assert endpoints.redis_url == ""
    assert not half.exists()


def test_a_deep_data_directory_gets_its_sockets_elsewhere(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = directory / "runtime"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    deep = directory / ("d" * 60) / ("e" * 60)
    with EmbeddedServers(deep) as endpoints:
        assert bump(endpoints) == (1, 1)
        assert str(runtime) in endpoints.redis_url
        assert str(runtime) in endpoints.postgres_dsn


def test_what_keeps_a_server_from_starting_is_told_in_its_words(directory: Path) -> None:
    data = directory / "data"
    with EmbeddedServers(data, redis=False):
        pass
    (data / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(StartupError, match="holds the data of PostgreSQL 15"):
        EmbeddedServers(data).start()
    (data / "postgres" / "PG_VERSION").write_text("18\n")
    (data / "postgres" / "global" / "pg_control").write_bytes(b"")
    with pytest.raises(StartupError, match=r"the embedded PostgreSQL did not start: .*pg_control"):
        EmbeddedServers(data).start()
    assert psutil.Process().children() == []


def test_a_data_directory_that_cannot_be_made_is_told(directory: Path) -> None:
    (directory / "file").write_text("")
    with pytest.raises(StartupError, match=r"data directory .*file/data cannot be used"):
        EmbeddedServers(directory / "file" / "data").start()
