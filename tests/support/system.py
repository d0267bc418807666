"""The real MarketFlow as a subprocess: started on a directory of its own, asked over HTTP, stopped or killed."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import psycopg2
import redis
from prometheus_client.parser import text_string_to_metric_families

from tests.support.feed_server import FeedServer
from tests.support.oracle import Row
from tests.support.ports import free_port
from tests.support.waiting import wait_until

HOST = "127.0.0.1"
START_TIMEOUT = 45.0  # seconds; a first start creates a PostgreSQL cluster
ANSWER_TIMEOUT = 10.0  # seconds

SYSTEMS: "list[System]" = []
"""Those that live now, so that their logs can be shown with a failed test."""

Config = Mapping[str, Mapping[str, Any]]


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def body(self) -> Any:
        """The JSON in it."""
        return json.loads(self.data)


class StoredRow(NamedTuple):
    """A row of aggregated_prices; times in Unix ms."""

    mode: str
    exchange: str
    symbol: str
    window_start: int
    stored_at: int
    row: Row


class Exit(NamedTuple):
    """How a command ended."""

    status: int
    output: str
    errors: str


def to_toml(config: Config) -> str:
    """Return tables of plain values as TOML."""
    lines: list[str] = []
    for section, keys in config.items():
        lines += [f"[{section}]", *(f"{key} = {_value(value)}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


def exchanges_of(feeds: Sequence[FeedServer]) -> list[dict[str, Any]]:
    """Return feeds as a configuration names them."""
    return [{"name": feed.name, "host": HOST, "port": feed.port} for feed in feeds]


def marketflow(*arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Exit:
    """Run a command of MarketFlow to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "marketflow", *arguments],
        capture_output=True,
        text=True,
        env=environment(env),
        cwd=cwd,
        timeout=30,
        check=False,
    )
    return Exit(done.returncode, done.stdout, done.stderr)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without MarketFlow's settings, and more."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MARKETFLOW_")} | dict(more or {})


class System:
    """One `marketflow run` after another on the same configuration and data directory."""

    def __init__(self, directory: Path, config: Config, env: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.port = free_port()
        server = {"host": HOST, "port": self.port} | dict(config.get("server", {}))
        storage = {"data_dir": str(self.data_dir)} | dict(config.get("storage", {}))
        self._config_file = directory / "marketflow.toml"
        self._config_file.write_text(to_toml({**config, "server": server, "storage": storage}))
        self._log = directory / "log"
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        SYSTEMS.append(self)

    @property
    def log(self) -> str:
        """What it wrote to stdout and stderr, in all its runs."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def log_shown(self) -> str:
        """The end of it, without the requests that were answered well."""
        lines = [line for line in self.log.splitlines() if not ("request" in line and " 200 " in line)]
        return "\n".join(lines[-80:])

    def start(self, *arguments: str) -> None:
        """Start it; returns at once."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "marketflow", "run", "--config", str(self._config_file), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(self._env),
                cwd=self.directory,
                start_new_session=True,
            )

    def start_ready(self, *arguments: str) -> None:
        """Start it and return when it can serve."""
        self.start(*arguments)
        wait_until(self.is_ready, "GET /health/ready answers 200", START_TIMEOUT)

    def is_ready(self) -> bool:
        """Tell whether it can serve. Raises AssertionError when it has ended instead."""
        assert self._process is not None
        assert self._process.poll() is None, f"it ended with status {self._process.returncode}"
        try:
            return self.get("/health/ready").status == 200
        except OSError:
            return False

    # --- over HTTP ---

    def get(self, path: str, **headers: str) -> Answer:
        """Answer GET."""
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Answer POST."""
        return self.ask("POST", path, body, headers)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Answer any request. Raises OSError when nobody does."""
        with contextlib.closing(http.client.HTTPConnection(HOST, self.port, timeout=ANSWER_TIMEOUT)) as connection:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())

    def body(self, path: str) -> Any:
        """Return the JSON of GET, which must succeed."""
        answer = self.get(path)
        assert answer.status == 200, (path, answer)
        return answer.body

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a metric that have these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics").data.decode())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    # --- behind it ---

    def rows(self) -> list[StoredRow]:
        """Return all rows of aggregated_prices."""
        with contextlib.closing(self.postgres()) as connection, connection.cursor() as cursor:
            cursor.execute(
                'SELECT mode, exchange, pair_name, window_start, "timestamp", open_price, close_price, min_price,'
                " max_price, average_price, tick_count FROM aggregated_prices ORDER BY 1, 2, 3, 4"
            )
            return [
                StoredRow(mode, exchange, symbol, _ms(start), _ms(stored), Row(*values))
                for mode, exchange, symbol, start, stored, *values in cursor.fetchall()
            ]

    def stored_ticks(self) -> int:
        """Return the sum of tick_count."""
        return sum(row.row.ticks for row in self.rows())

    def postgres(self) -> Any:
        """Return a connection to the embedded PostgreSQL."""
        return psycopg2.connect(host=str(self.data_dir / "run" / "postgres"), user="postgres", dbname="postgres")

    def redis(self) -> "redis.Redis":
        """Return a client of the embedded Redis."""
        return redis.Redis(unix_socket_path=str(self.data_dir / "run" / "valkey" / "valkey.sock"))

    # --- its end ---

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def terminate(self, timeout: float = 10.0) -> int:
        """Stop it as an operator does; return its exit status. Raises when it takes longer than `timeout` s."""
        self.signal()
        return self.wait(timeout)

    def wait(self, timeout: float) -> int:
        """Return its exit status once it has ended."""
        assert self._process is not None
        try:
            return int(self._process.wait(timeout))
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"MarketFlow has not ended within {timeout:g} s") from None

    def let_end(self) -> None:
        """Ask it to stop if it still runs: who is killed leaves no record of what it covered."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(TimeoutError):
                self.terminate()

    def kill(self) -> None:
        """Kill everything at once: the process, its workers, its embedded servers."""
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()  # so that nobody sees another's end
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process is not None:
            self._process.wait()
        _, alive = psutil.wait_procs(processes, 10)
        assert not alive

    def process_of(self, program: str) -> psutil.Process:
        """Return the process that runs a program for it, of several the one that started the others."""
        found = [process for process in self.processes() if process.name() == program]
        assert found, f"no {program} runs"
        return min(found, key=lambda process: process.create_time())

    def processes(self) -> list[psutil.Process]:
        """Return everything that runs for it: what descends from it, or has its directory in its command line."""
        roots = [] if self._process is None or self._process.poll() is not None else [psutil.Process(self._process.pid)]
        roots += [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(str(self.directory) in part for part in process.info["cmdline"] or ())
        ]
        found = {process.pid: process for process in roots}
        for process in roots:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.update({child.pid: child for child in process.children(recursive=True)})
        return list(found.values())


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


@contextlib.contextmanager
def installed(config: Config, env: Mapping[str, str] | None = None) -> Iterator[System]:
    """Give MarketFlow a directory of its own, not started yet; kill what is left of it at the end."""
    # Not in pytest's own directory: the path of a unix socket may have 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="mf-"))
    directory.chmod(0o711)  # where root runs the tests, PostgreSQL runs as another user
    system = System(directory, config, env)
    try:
        yield system
    except BaseException:
        print(system.log_shown)
        raise
    finally:
        if "COVERAGE_RUN" in os.environ:
            system.let_end()
        system.kill()
        SYSTEMS.remove(system)
        shutil.rmtree(directory, ignore_errors=True)


def live_config(
    feeds: Sequence[FeedServer], interval: str = "1s", lateness: str = "500ms"
) -> dict[str, dict[str, Any]]:
    """Return the configuration of a system in live mode on these feeds."""
    return {
        "mode": {"initial": "live"},
        "live": {"exchanges": exchanges_of(feeds)},
        "aggregation": {"interval": interval, "lateness": lateness},
    }
