"""The API on gunicorn's gevent worker, over real sockets: also with what no HTTP library would send."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.api_server import ApiServer, serve

LOOPBACK = ("127.0.0.1", 0)
CLOSE = b"Host: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with serve(LOOPBACK) as served:
        yield served


def _request(line: bytes, headers: bytes = b"") -> bytes:
    return line + b" HTTP/1.1\r\n" + headers + CLOSE


def _body(received: bytes) -> bytes:
    return received.partition(b"\r\n\r\n")[2]


def test_a_price_over_a_real_connection(server: ApiServer) -> None:
    status, received = server.ask(_request(b"GET /prices/latest/BTCUSDT"))
    assert status == 200
    assert _body(received) == (
        b'{"symbol":"BTCUSDT","exchange":"exchange2","price":67012.5,"timestamp":1763827200123,'
        b'"mode":"live","source":"redis","stale":false}'
    )


def test_one_connection_serves_many_requests_also_after_a_refusal(server: ApiServer) -> None:
    with server.connect() as connection:
        client = http.client.HTTPConnection("127.0.0.1")
        client.sock = connection
        statuses = []
        for method, path, body in [
            ("GET", "/prices/latest/BTCUSDT", None),
            ("GET", "/prices/latest/XYZ", None),
            ("POST", "/mode/live", "x" * 5000),
            ("HEAD", "/prices/latest", None),
            ("GET", "/prices/highest/BTCUSDT?period=1", None),
            ("GET", "/prices/average/exchange1/BTCUSDT?period=5s", None),
        ]:
            client.request(method, path, body)
            response = client.getresponse()
            response.read()
            statuses.append(response.status)
        assert statuses == [200, 404, 413, 200, 400, 200]


@pytest.mark.parametrize(
    ("line", "accepted"),
    [
        (b"GET /prices/latest/\xff\xfe", {400, 404}),
        (b"GET /prices/latest/%00%ff%80", {404}),
        (b"GET /%ED%A0%80", {404}),
        (b"GET /prices/latest/" + b"A" * 3000, {404}),
        # gunicorn's own worker may reset what it has not read, and its answer with it; ours does not (test_server.py).
        (b"GET /" + b"A" * 100_000, {0, 400, 414}),
        (b"GET http://elsewhere/prices/latest/BTCUSDT", {200}),
        (b"GET /prices/highest/BTCUSDT?period=%ff%00", {400}),
        (b"GET /prices/highest/BTCUSDT?period=1m&" + b"a=1&" * 800, {400}),
        (b"GET /prices/highest/BTCUSDT?%zz=%", {400}),
        (b"OPTIONS *", {400, 404}),
        (b"BREW /prices/latest", {400}),
        (b"get /prices/latest", {400, 405}),
        (b"WEBSOCKET /mode", {400}),
        (b"DELETE /mode", {405}),
        (b"CONNECT x:1", {400, 404, 405}),
        (b"G\x00T /", {400}),
        (b"GET", {400}),
        (b"", {400}),
        (b"\x16\x03\x01\x02\x00", {400}),
    ],
)
def test_a_strange_request_line_gets_a_clean_refusal(server: ApiServer, line: bytes, accepted: set[int]) -> None:
    status, received = server.ask(_request(line))
    assert status in accepted, received
    assert b"Traceback" not in received
    assert b".py" not in received


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        (b"Content-Length: -1\r\n", {400}),
        (b"Content-Length: 1e9\r\n", {400}),
        (b"Content-Length: " + b"9" * 30 + b"\r\n", {400, 413}),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", {400}),
        (b"Transfer-Encoding: chunked\r\n", {400, 411}),
        (b"Transfer-Encoding: nonsense\r\n", {400, 501}),
        (b"X: \x00\r\n", {400}),
        (b"X-Request-ID: \xff\xfe\r\n", {200}),
        (b"Authorization: \xff\r\n", {200}),
        (b"Origin: \xff\r\n", {403}),
        (b": nothing\r\n", {400}),
        (b"no colon\r\n", {400}),
        (b"X: " + b"y" * 100_000 + b"\r\n", {0, 400, 431}),  # as above
        (b"".join(b"X-%d: y\r\n" % number for number in range(500)), {400, 431}),
        (b"Accept: nothing/at-all\r\n", {200}),
        (b"Content-Type: text/plain; charset=nowhere\r\n", {200}),
        (b"Expect: the-unexpected\r\n", {200, 417}),
        (b"Range: bytes=0-1\r\nCookie: =;\xff\r\n", {200}),
    ],
)
def test_strange_headers_get_a_clean_answer(server: ApiServer, headers: bytes, accepted: set[int]) -> None:
    status, received = server.ask(_request(b"POST /mode/live", headers))
    assert status in accepted, received
    assert b"Traceback" not in received


def test_the_peer_counts_and_not_what_is_forwarded(server: ApiServer, tmp_path: Path) -> None:
    post = _request(b"POST /mode/live", b"X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n")
    assert server.ask(post)[0] == 200
    with serve(str(tmp_path / "api.sock")) as on_unix_socket:
        status, received = on_unix_socket.ask(post)
    assert status == 403
    assert json.loads(_body(received))["type"] == "/problems/forbidden"


def test_the_token_is_asked_for(tmp_path: Path) -> None:
    with serve(str(tmp_path / "api.sock"), token="s3cret") as guarded:  # noqa: S106  the token of this test alone
        status, received = guarded.ask(_request(b"POST /mode/test"))
        assert status == 401
        assert b"\r\nwww-authenticate: bearer\r\n" in received.lower()
        status, received = guarded.ask(_request(b"POST /mode/test", b"Authorization: Bearer s3cret\r\n"))
        assert (status, json.loads(_body(received))["mode"]) == (200, "test")


def test_a_client_that_says_nothing_harms_no_other(server: ApiServer) -> None:
    quiet = [server.connect() for _ in range(50)]
    try:
        for connection in quiet[:25]:
            connection.sendall(b"GET /prices/latest/BTCUSDT HTTP/1.1\r\nX-Slow: ")
        assert server.ask(_request(b"GET /prices/latest/BTCUSDT"))[0] == 200
    finally:
        for connection in quiet:
            connection.close()


_segments = st.lists(
    st.one_of(st.text(max_size=12), st.sampled_from(["prices", "latest", "highest", "BTCUSDT", "mode"])), max_size=6
)
_queries = st.lists(st.tuples(st.one_of(st.just("period"), st.text(max_size=8)), st.text(max_size=12)), max_size=3)
_methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
_header_text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20)
_names = ["X-Request-ID", "Authorization", "Origin", "Content-Type", "Accept", "Cookie", "If-None-Match", "Range"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=_methods,
    segments=_segments,
    queries=_queries,
    headers=st.dictionaries(st.sampled_from(_names), _header_text, max_size=4),
    body=st.binary(max_size=50),
)
def test_no_request_gets_a_500(
    server: ApiServer,
    method: str,
    segments: list[str],
    queries: list[tuple[str, str]],
    headers: dict[str, str],
    body: bytes,
) -> None:
    target = "/" + "/".join(quote(segment, safe="") for segment in segments)
    if queries:
        target += "?" + urlencode(queries)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
    length = b"Content-Length: %d\r\nConnection: close\r\nHost: x\r\n\r\n" % len(body)
    status, received = server.ask(f"{method} {target} HTTP/1.1\r\n".encode() + lines + length + body)
    assert status == 200 or 400 <= status < 500, received
    if status >= 400 and method != "HEAD" and b"application/problem+json" in received:
        assert json.loads(_body(received))["status"] == status
    assert b"Traceback" not in received


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(min_size=1, max_size=200))
def test_bytes_that_are_no_request_get_a_refusal_or_nothing(server: ApiServer, raw: bytes) -> None:
    status, received = server.ask(raw + b"\r\n\r\n")
    assert status == 0 or 400 <= status < 500, received


def test_it_still_serves_after_all_that(server: ApiServer) -> None:
    assert server.ask(_request(b"GET /prices/latest/BTCUSDT"))[0] == 200
    with server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
