"""The processes of `marketflow run`, with real gunicorn and a stand-in for the node: how they serve and end."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest

from tests.support.ports import free_port
from tests.support.system import environment
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
AWAY = {"MARKETFLOW_REDIS__URL": "redis://127.0.0.1:1", "MARKETFLOW_POSTGRES__DSN": "postgresql://127.0.0.1:1/x"}
GENERATED = {"MARKETFLOW_TESTGEN__EXCHANGES": '[{"name": "exchange1", "port": 1}]'}


class Running:
    """One run: its process, its port, and what it wrote."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self.port = free_port()
        self.data = directory / "data"
        self._out, self._err = directory / "out", directory / "err"
        ours = {"MARKETFLOW_SERVER__PORT": str(self.port), "MARKETFLOW_STORAGE__DATA_DIR": str(self.data)}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.standin_run"],
                env=environment({"PYTHONPATH": str(REPOSITORY), **ours, **env}),
                stdout=out,
                stderr=err,
                cwd=directory,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def get(self, path: str = "/") -> str:
        with closing(self.connect()) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.read().decode()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def worker(self) -> int:
        """Return the process that answers. Raises OSError when none does."""
        return int(self.get())

    def serves(self) -> bool:
        assert self.process.poll() is None, self.err
        with suppress(OSError, http.client.HTTPException):
            return bool(self.get())
        return False

    def end(self, number: int = signal.SIGTERM, timeout: float = 10) -> int:
        self.process.send_signal(number)
        return int(self.process.wait(timeout))

    def stopped_nodes(self) -> list[str]:
        return sorted(path.name for path in self.data.glob("stopped-*"))


@contextmanager
def running(directory: Path, **env: str) -> Iterator[Running]:
    run = Running(directory, env)
    try:
        yield run
    finally:
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(run.process.pid).children(recursive=True)
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            psutil.wait_procs(children, 5)
        run.process.kill()
        run.process.wait(5)


@contextmanager
def serving(directory: Path, **env: str) -> Iterator[Running]:
    with running(directory, **AWAY, **GENERATED, **env) as run:
        wait_until(run.serves, "it serves", 30)
        yield run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_0_and_stops_the_node(tmp_path: Path, number: int) -> None:
    with serving(tmp_path) as run:
        worker = run.worker()
        with closing(run.connect()) as idle:
            idle.request("GET", "/")
            idle.getresponse().read()
            assert run.end(number) == 0
        assert run.stopped_nodes() == [f"stopped-{worker}"]
        assert not _runs(worker)


def test_it_says_where_it_serves(tmp_path: Path) -> None:
    with serving(tmp_path) as run:
        first, *rest = run.out.splitlines()
        url = f"http://127.0.0.1:{run.port}"
        assert first.startswith(f"MarketFlow serves {url}/prices/latest/BTCUSDT")
        assert rest == [
            f"  curl {url}/prices/latest/BTCUSDT",
            f"  curl '{url}/prices/highest/BTCUSDT?period=30s'",
            f"  curl {url}/health",
        ]


def test_it_ends_in_time_while_clients_keep_asking(tmp_path: Path) -> None:
    with serving(tmp_path) as run:
        answered = threading.Barrier(9)

        def ask_on_and_on() -> str:
            with closing(run.connect()) as connection:
                for number in range(1_000_000):
                    try:
                        connection.request("GET", "/")
                        connection.getresponse().read()
                    except (OSError, http.client.HTTPException):
                        return "ended"
                    if number == 10:
                        answered.wait(20)
            return "still asking"

        with ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(ask_on_and_on) for _ in range(8)]
            answered.wait(20)
            assert run.end() == 0
            assert {client.result(10) for client in clients} == {"ended"}


def test_a_request_under_way_is_answered_before_it_ends(tmp_path: Path) -> None:
    with serving(tmp_path) as run, closing(run.connect()) as connection:
        connection.request("GET", "/slow")
        wait_until(lambda: "ESTABLISHED" in str(psutil.Process(run.worker()).net_connections()), "it is taken")
        run.process.send_signal(signal.SIGTERM)
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.read()
        assert run.process.wait(10) == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with serving(tmp_path) as run, closing(run.connect()) as connection:
        children = psutil.Process(run.process.pid).children(recursive=True)
        connection.request("GET", "/slow")
        run.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not _accepts(run.port), "the first signal is taken")
        began = monotonic()
        assert run.end() == 1
        assert monotonic() - began < 0.5
        assert psutil.wait_procs(children, 2)[1] == []


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    with serving(tmp_path, MARKETFLOW_SERVER__WORKERS="2") as run:
        killed = run.worker()
        os.kill(killed, signal.SIGKILL)
        arbiter = psutil.Process(run.process.pid).children()[-1]
        wait_until(lambda: len({child.pid for child in arbiter.children()} - {killed}) == 2, "two workers again")
        wait_until(lambda: run.serves() and run.worker() != killed, "it serves")
        assert run.end() == 0


def test_a_node_that_gives_up_ends_it_with_1_and_one_line(tmp_path: Path) -> None:
    with serving(tmp_path) as run:
        with suppress(OSError, http.client.HTTPException):
            run.get("/give-up")
        assert run.process.wait(10) == 1
        assert "gave up" in _only_line(run)
        assert len(run.stopped_nodes()) == 1


def test_a_node_that_cannot_start_ends_it_with_1_and_one_line(tmp_path: Path) -> None:
    refuse = {"MARKETFLOW_SERVER__ADMIN_TOKEN": "refuse", "MARKETFLOW_SERVER__WORKERS": "2"}
    with running(tmp_path, **AWAY, **GENERATED, **refuse) as run:
        assert run.process.wait(30) == 1
        assert _only_line(run) == "marketflow: PostgreSQL refused: password authentication failed"
        assert run.out == ""


def test_a_killed_gunicorn_ends_it_with_1_and_one_line(tmp_path: Path) -> None:
    with serving(tmp_path) as run:
        arbiter = psutil.Process(run.process.pid).children()[-1]
        worker = run.worker()
        arbiter.kill()
        assert run.process.wait(10) == 1
        assert "ended by itself" in _only_line(run)
        assert not _runs(worker)


def _only_line(run: Running) -> str:
    lines = [line for line in run.err.splitlines() if " [info " not in line]
    assert len(lines) == 1, run.err
    return lines[0]


def test_a_killed_parent_leaves_nothing_behind(tmp_path: Path) -> None:
    with serving(tmp_path) as run:
        children = psutil.Process(run.process.pid).children(recursive=True)
        run.process.kill()
        assert psutil.wait_procs(children, 10)[1] == []


def test_without_urls_it_brings_servers_and_testgen_of_its_own(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        wait_until(run.serves, "it serves", 60)
        redis_url, dsn = run.get("/endpoints").split(" ")
        assert redis_url.startswith("unix://")
        assert dsn.startswith("postgresql:///")
        exchanges = dict(each.split("=") for each in run.get("/exchanges").split(","))
        assert list(exchanges) == ["exchange1", "exchange2", "exchange3"]
        port = int(exchanges["exchange2"])
        assert _first_tick(port)["symbol"] in {"BTCUSDT", "DOGEUSDT", "TONUSDT", "SOLUSDT", "ETHUSDT"}

        (generator,) = [
            child for child in psutil.Process(run.process.pid).children() if "testgen" in " ".join(child.cmdline())
        ]
        generator.kill()
        generator.wait(5)
        wait_until(lambda: _accepts(port), "testgen is back on its port")
        assert _first_tick(port)["price"] > 0
        everything = psutil.Process(run.process.pid).children(recursive=True)
        assert run.end() == 0
        assert psutil.wait_procs(everything, 1)[1] == []


def _first_tick(port: int) -> dict[str, Any]:
    with socket.create_connection(("127.0.0.1", port), 5) as feed, feed.makefile("rb") as lines:
        tick: dict[str, Any] = json.loads(lines.readline())
        return tick


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 10_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_gets_a_problem(shared: Running, request_line: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), 5) as client:
        client.sendall(request_line)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        body = json.loads(answer.read())
    assert answer.status == body["status"] == status
    assert answer.getheader("Content-Type") == "application/problem+json"
    assert shared.worker()
    assert "Traceback" not in shared.err


def test_no_connection_starves_while_others_are_busy(shared: Running) -> None:
    """Every client gets its share: without turns, one whose next request is there already is served on and on."""
    connections, seconds = 16, 1.5
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    counts = [0] * connections
    end = monotonic() + seconds

    def ask(index: int) -> None:
        with socket.create_connection(("127.0.0.1", shared.port), 5) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Always one more request than answers, so that the next one is there already.
            client.sendall(request)
            while monotonic() < end:
                client.sendall(request)
                client.recv(65536)
                counts[index] += 1

    with ThreadPoolExecutor(connections) as pool:
        for future in [pool.submit(ask, index) for index in range(connections)]:
            future.result(20)
    assert min(counts) > max(counts) / 4


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A run that tests do not end."""
    with serving(tmp_path_factory.mktemp("shared")) as run:
        yield run


def _runs(pid: int) -> bool:
    """Tell whether a process runs; one that has ended may still wait for whoever inherited it."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
