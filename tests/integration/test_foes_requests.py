"""Hostile clients of the REST API: whatever they send, and however slowly, it costs them their connection at most."""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.feed_server import FeedServer, now_ms
from tests.support.oracle import Oracle
from tests.support.system import HOST, System, installed, live_config
from tests.support.waiting import wait_until

TOKEN = "a token that nobody guesses"  # noqa: S105  # guards a test's own system
HEAD_S = 15.0
"""How long the head of a request may take; `keepalive` of marketflow/server/application.py."""
TAKE_S = 30.0
"""How long a client may take for an answer; `_TAKE_S` of marketflow/server/worker.py."""


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    feed = FeedServer("exchange1", Oracle())
    with installed(live_config([feed]) | {"server": {"admin_token": TOKEN}}) as system:
        system.start_ready()
        feed.send_ticks([("BTCUSDT", 100.0, now_ms())])
        wait_until(lambda: system.get("/prices/latest/BTCUSDT").status == 200, "a price is there")
        yield system
    feed.close()


def ask(system: System, request: bytes) -> tuple[int, bytes]:
    """Send raw bytes; return the status, 0 for none, and all that came until the server closed."""
    said = b""
    with socket.create_connection((HOST, system.port), timeout=10) as client:
        # A server that has refused already may close before all is sent.
        with contextlib.suppress(ConnectionError):
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(65_536):
                said += piece
    return (int(said[9:12]) if said.startswith(b"HTTP/1.1 ") else 0), said


def node_memory(system: System) -> int:
    """Return the resident bytes of all Python processes of a system."""
    return sum(process.memory_info().rss for process in system.processes() if process.name().startswith("python"))


# --- what they send ---

METHODS = st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"BREW", b"G\x00T", b"A" * 300, b"get", b""])
PATHS = st.one_of(
    st.sampled_from(
        [
            b"/prices/latest/BTCUSDT",
            b"/prices/highest/BTCUSDT?period=",
            b"/prices/average/exchange1/BTCUSDT?period=",
            b"/mode/live",
            b"/health",
            b"/metrics",
            b"/docs/static/../../../etc/passwd",
            b"/docs/static/%2e%2e/%2e%2e/app.py",
            b"http://elsewhere/mode",
            b"*",
            b"//",
        ]
    ),
    st.binary(max_size=40),
)
TAILS = st.sampled_from(
    [
        b"",
        b"1s",
        b"1m&period=1m",
        b"9" * 3_000 + b"s",
        b"%",
        b"%00",
        b"\xff",
        b"\xc3\xa9",
        b"x" * 5_000,
        b"-1s",
        b"1e3s",
    ]
)
HEADERS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"Content-Length: 5",
                b"Content-Length: -1",
                b"Content-Length: 5\r\nContent-Length: 6",
                b"Content-Length: 99999999999999999999",
                b"Transfer-Encoding: chunked",
                b"Transfer-Encoding: gzip, chunked",
                b"Transfer-Encoding: \x0bchunked",
                b"Expect: 100-continue",
                b"Expect: the unexpected",
                b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
                b"X-Request-ID: " + b"y" * 400,
                b"X-Request-ID: \x1b[31mred",
                b"Authorization: Bearer " + b"\xff" * 50,
                b"Authorization: Bearer",
                b"Range: bytes=0-99999999999999999999",
                b"If-Modified-Since: never",
                b"If-None-Match: \xff",
                b"Accept: \x00",
                b"Origin: http://[",
                b"Host: [::1",
                b"Host: a\r\nHost: b",
                b"Cookie: " + b"c" * 8_000,
                b"Script-Name: /x",
                b"SCRIPT_NAME: /x",
                b"X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off",
                b" folded: x",
                b"no colon",
                b": no name",
            ]
        ),
        st.binary(max_size=30),
    ),
    max_size=4,
)
BODIES = st.sampled_from([b"", b"hello", b"zz\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"x" * 3_000, b"{" * 1_000])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(METHODS, PATHS, TAILS, st.sampled_from([b" HTTP/1.1", b" HTTP/1.0", b" HTTP/7.7", b""]), HEADERS, BODIES)
@example(b"POST", b"/mode/live", b"", b" HTTP/1.1", [b"Content-Length: 5"], b"")
def test_no_request_gets_a_500(
    system: System, method: bytes, path: bytes, tail: bytes, version: bytes, headers: list[bytes], body: bytes
) -> None:
    head = b"\r\n".join([method + b" " + path + tail + version, b"Host: x", b"Connection: close", *headers])
    status, said = ask(system, head + b"\r\n\r\n" + body)
    assert status < 500 or status in {501, 505}, said
    assert b"Traceback" not in said
    assert b"root:" not in said


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /mode?x=" + b"x" * 4_000 + b" HTTP/1.1\r\nHost: x\r\n", 400),
        (b"GET /mode?x=" + b"x" * 4_100 + b" HTTP/1.1\r\nHost: x\r\n", 414),
        (b"GET /mode HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 8_100 + b"\r\n", 200),
        (b"GET /mode HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 8_200 + b"\r\n", 431),
        (b"GET /mode HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 62, 200),
        (b"GET /mode HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 65, 431),
        (b"POST /mode/live HTTP/1.1\r\nHost: x\r\nContent-Length: 1024\r\n", 401),
        (b"POST /mode/live HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\n", 413),
        (b"POST /mode/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n", 411),
    ],
    ids=lambda value: repr(value[:36]) if isinstance(value, bytes) else str(value),
)
def test_limits_are_as_documented(system: System, request_bytes: bytes, status: int) -> None:
    found, said = ask(system, request_bytes + b"Connection: close\r\n\r\n")
    assert found == status, said


@pytest.mark.parametrize(
    "header",
    [
        {"SCRIPT_NAME": "/mode"},
        {"SCRIPT_NAME": "/elsewhere"},
        {"PATH_INFO": "/health"},
        {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "off"},
        {"X-Forwarded-For": "8.8.8.8", "Forwarded": "for=8.8.8.8", "X-Real-IP": "8.8.8.8"},
        {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABkAAQAAP__"},
    ],
    ids=lambda header: next(iter(header)),
)
def test_no_header_of_a_proxy_is_believed(system: System, header: dict[str, str]) -> None:
    answer = system.get("/mode", **header)
    assert (answer.status, answer.body) == (200, {"mode": "live"})


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP"])
def test_a_forwarded_address_opens_nothing(system: System, name: str) -> None:
    value = "for=127.0.0.1" if name == "Forwarded" else "127.0.0.1"
    assert system.ask("POST", "/mode/test", headers={name: value}).status == 401
    assert system.body("/mode") == {"mode": "live"}


# --- how slowly they send and read ---


def test_slow_and_idle_clients_cost_others_nothing_and_are_cut(system: System) -> None:
    usual = max(_times(system, 50))
    before = node_memory(system)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection((HOST, system.port), 10)) for _ in range(1_000)]
        slow = [stack.enter_context(socket.create_connection((HOST, system.port), 10)) for _ in range(200)]
        deaf = stack.enter_context(_deaf_client(system))
        began = time.monotonic()
        dribbling = threading.Thread(target=_dribble, args=(slow, HEAD_S + 10), daemon=True)
        dribbling.start()
        times = _times(system, 200)
        times.sort()
        assert times[-10] < max(0.25, 3 * usual), f"p95 {times[-10]:.3f} s, usually at most {usual:.3f} s"
        _wait_closed(idle + slow, began + HEAD_S + 5)
        assert time.monotonic() - began > HEAD_S - 1
        dribbling.join()
        _wait_reset(deaf, began + TAKE_S + 10)
    assert node_memory(system) - before < 64 * 1_048_576
    assert system.get("/prices/latest/BTCUSDT").status in {200, 404}


def _times(system: System, count: int) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        assert system.get("/prices/latest/BTCUSDT").status == 200
        times.append(time.perf_counter() - began)
    return times


def _dribble(clients: list[socket.socket], seconds: float) -> None:
    """Send a byte of a header on each connection, again and again."""
    never = threading.Event()
    deadline = time.monotonic() + seconds
    for client in clients:
        client.sendall(b"GET /mode HTTP/1.1\r\nX-Slow: ")
    while clients and time.monotonic() < deadline:
        for client in clients:
            with contextlib.suppress(OSError):
                client.sendall(b"x")
        never.wait(0.5)


def _deaf_client(system: System) -> socket.socket:
    """Return a connection that asks for more than buffers take, and reads none of it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.settimeout(10)
    client.connect((HOST, system.port))
    client.sendall(b"GET /docs/static/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
    return client


def _wait_closed(clients: list[socket.socket], deadline: float) -> None:
    """Return once the server has closed all of these. Raises TimeoutError."""
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left < 0:
                raise TimeoutError(f"{len(selector.get_map())} connections are open still")
            for key, _ in selector.select(left):
                client = clients[clients.index(key.fileobj)]  # type: ignore[arg-type]  # a socket was registered
                with contextlib.suppress(ConnectionError):
                    if client.recv(65_536):
                        continue
                selector.unregister(client)


def _wait_reset(client: socket.socket, deadline: float) -> None:
    """Return once the server has given up on a client that does not read: what is sent to it then is refused."""

    def is_reset() -> bool:
        try:
            client.sendall(b"x")
        except ConnectionError:
            return True
        return False

    wait_until(is_reset, "the server gives up", deadline - time.monotonic())


def test_memory_does_not_grow_with_refused_requests(system: System) -> None:
    def many(rounds: int) -> None:
        for number in range(rounds):
            for path in (f"/prices/latest/X{number}", f"/{number}", f"/prices/highest/BTCUSDT?period={number}x"):
                system.ask("GET", path, headers={"X-Request-ID": f"r{number}"})

    many(50)
    before = node_memory(system)
    many(350)
    assert node_memory(system) - before < 8 * 1_048_576


def test_all_of_it_left_no_traceback_and_restarted_nothing(system: System) -> None:
    assert "Traceback" not in system.log
    assert TOKEN not in system.log
    assert "\x1b[31m" not in system.log
    assert system.metric("marketflow_actor_restarts_total") == 0
