"""Bad requests: each gets the problem that the contract names, none gets a 500, and none harms others."""

import contextlib
import http.client
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.feed_server import FeedServer, now_ms
from tests.support.system import HOST, Answer, System, installed, live_config
from tests.support.waiting import wait_until

TOKEN = "a token of the tests"  # noqa: S105 - guards nothing but a test's own system


@pytest.fixture(scope="module")
def system(feeds: list[FeedServer]) -> Iterator[System]:
    with installed(live_config(feeds) | {"server": {"admin_token": TOKEN}}) as system:
        system.start_ready()
        feeds[0].send_ticks([("BTCUSDT", 100.0, now_ms())])
        wait_until(lambda: system.get("/prices/latest/BTCUSDT").status == 200, "a price is there")
        yield system


def check_problem(answer: Answer, status: int) -> str:
    """Return the detail of a problem."""
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body["status"] == status
    assert answer.body["type"]
    assert answer.body["title"]
    assert b"Traceback" not in answer.data
    return str(answer.body["detail"])


@pytest.mark.parametrize("kind", ["highest", "lowest", "average"])
@pytest.mark.parametrize(
    "period", ["", "0s", "1", "s", "-1s", "1.5s", "30S", "100ms", "366d", "1w", "%00", "9" * 400 + "s", "30s&period=1m"]
)
def test_a_bad_period_is_named_with_the_accepted_form(system: System, kind: str, period: str) -> None:
    detail = check_problem(system.get(f"/prices/{kind}/BTCUSDT?period={period}"), 400)
    assert "period" in detail
    assert "30s" in detail


@pytest.mark.parametrize("name", ["NOPE", "btcusdt", "BTCUSDT%00", "%F0%9F%92%A9", "..%2F..%2Fetc", "%FF", "x" * 2_000])
def test_an_unknown_name_is_not_found(system: System, name: str) -> None:
    for kind in ("latest", "highest", "lowest", "average"):
        check_problem(system.get(f"/prices/{kind}/{name}"), 404)
        check_problem(system.get(f"/prices/{kind}/{name}/BTCUSDT"), 404)
        check_problem(system.get(f"/prices/{kind}/exchange1/{name}"), 404)


@pytest.mark.parametrize(
    "path", ["/", "/prices", "/prices/", "/prices/median/BTCUSDT", "/mode/other", "/x", "/metrics/x"]
)
def test_an_unknown_path_is_not_found(system: System, path: str) -> None:
    check_problem(system.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/prices/latest/BTCUSDT"),
        ("DELETE", "/prices/highest/BTCUSDT"),
        ("PUT", "/mode"),
        ("GET", "/mode/live"),
        ("PATCH", "/health"),
        ("POST", "/metrics"),
    ],
)
def test_a_method_that_is_not_allowed_names_those_that_are(system: System, method: str, path: str) -> None:
    answer = system.ask(method, path)
    check_problem(answer, 405)
    assert answer.headers["allow"]


def test_a_body_that_is_too_large_is_refused(system: System) -> None:
    check_problem(system.post("/mode/live", b"x" * 2_000_000, Authorization=f"Bearer {TOKEN}"), 413)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN])
def test_without_the_token_nobody_switches(system: System, header: str | None) -> None:
    answer = system.ask("POST", "/mode/test", headers={} if header is None else {"Authorization": header})
    assert answer.status in {401, 403}
    assert TOKEN not in check_problem(answer, answer.status)
    assert system.body("/mode") == {"mode": "live"}


def test_with_the_token_the_mode_already_on_is_no_change(system: System) -> None:
    answer = system.post("/mode/live", Authorization=f"Bearer {TOKEN}")
    assert (answer.status, answer.body) == (200, {"mode": "live", "previous": "live", "changed": False})


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /prices/latest/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /mode HTTP/1.1\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /mode HTTP/1.1\r\n" + b"X: a\r\n" * 2_000 + b"\r\n",
        b"POST /mode/live HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"POST /mode/live HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /mode/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        bytes(range(256)) * 64,
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_is_no_request_harms_nobody(system: System, request_bytes: bytes) -> None:
    with socket.create_connection((HOST, system.port), timeout=10) as client:
        with contextlib.suppress(OSError):
            client.sendall(request_bytes)
            client.shutdown(socket.SHUT_WR)
        said = b""
        with contextlib.suppress(OSError):
            while piece := client.recv(65_536):
                said += piece
    assert not said.startswith(b"HTTP/1.1 5")
    assert b"Traceback" not in said
    assert system.get("/prices/latest/BTCUSDT").status in {200, 404}


PATH_PIECES = st.sampled_from(
    ["prices", "latest", "highest", "average", "BTCUSDT", "exchange1", "mode", "health", "%00", "%2e%2e", "", "é", "{}"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"]),
    st.lists(PATH_PIECES, max_size=5),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=30),
)
def test_no_request_gets_a_500(system: System, method: str, pieces: list[str], query: str) -> None:
    path = "/" + "/".join(pieces).encode().decode("latin-1").encode("ascii", "replace").decode() + "?" + query
    with contextlib.closing(http.client.HTTPConnection(HOST, system.port, timeout=10)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        assert answer.status < 500
        assert b"Traceback" not in answer.read()


def test_all_of_it_left_no_traceback_in_the_log(system: System) -> None:
    assert "Traceback" not in system.log
    assert system.metric("marketflow_actor_restarts_total") == 0
    assert TOKEN not in system.log
    assert TOKEN not in system.get("/health").data.decode()
    assert all(TOKEN not in part for process in system.processes() for part in process.cmdline())
