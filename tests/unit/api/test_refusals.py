"""Whatever is wrong with a request is said as a problem (RFC 9457), told apart by its type."""

import json
from typing import Any

import pytest
import structlog
from falcon import testing

from marketflow.api import ApiSettings, create_app
from tests.support.market import EXCHANGES, SYMBOLS, MemoryMarket


def problem(answer: testing.Result) -> tuple[int, str]:
    """Return status and type of a problem, after checking that it is one."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-ID"]
    body = answer.json
    assert list(body) == ["type", "title", "status", "detail"]
    assert body["status"] == answer.status_code
    assert body["title"]
    assert body["detail"]
    return answer.status_code, body["type"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/prices/latest/XYZUSDT", (404, "/problems/unknown-symbol")),
        ("/prices/latest/btcusdt", (404, "/problems/unknown-symbol")),
        ("/prices/latest/", (404, "/problems/unknown-symbol")),
        ("/prices/lowest/exchange1/XYZUSDT", (404, "/problems/unknown-symbol")),
        ("/prices/latest/exchange9/BTCUSDT", (404, "/problems/unknown-exchange")),
        ("/prices/average/exchange9/BTCUSDT", (404, "/problems/unknown-exchange")),
        ("/prices/latest/exchange2/ETHUSDT", (404, "/problems/no-data")),
        ("/prices/highest/ETHUSDT", (404, "/problems/no-data")),
        ("/", (404, "/problems/not-found")),
        ("/prices", (404, "/problems/not-found")),
        ("/prices/median/BTCUSDT", (404, "/problems/not-found")),
        ("/prices/latest/exchange1/BTCUSDT/more", (404, "/problems/not-found")),
        ("/docs/static/nothing.js", (404, "/problems/not-found")),
        ("/docs/static/../app.py", (404, "/problems/not-found")),
        ("/docs/static/%2e%2e/app.py", (404, "/problems/not-found")),
        ("/mode/test", (405, "/problems/method-not-allowed")),
        ("/prices/latest/%00", (404, "/problems/unknown-symbol")),
        ("/prices/latest/%ff%fe", (404, "/problems/unknown-symbol")),
        ("/%ed%a0%80", (404, "/problems/not-found")),
        ("/prices/latest/" + "A" * 4000, (404, "/problems/unknown-symbol")),
    ],
)
def test_a_path_that_has_no_answer(client: testing.TestClient, path: str, expected: tuple[int, str]) -> None:
    answer = client.simulate_get(path)
    assert problem(answer) == expected
    assert len(answer.content) < 500


def test_what_is_known_is_named(client: testing.TestClient) -> None:
    assert client.simulate_get("/prices/latest/XYZ").json["detail"] == (
        "'XYZ' is not served; symbols are: BTCUSDT, ETHUSDT"
    )
    assert client.simulate_get("/prices/latest/nasdaq/BTCUSDT").json["detail"] == (
        "'nasdaq' is not served; exchanges are: exchange1, exchange2, exchange3"
    )
    assert client.simulate_get("/prices/latest/exchange2/ETHUSDT").json["detail"] == (
        "No tick of ETHUSDT from exchange2 has been received in the current mode"
    )
    assert client.simulate_get("/prices/highest/ETHUSDT").json["detail"] == (
        "No tick of ETHUSDT has been received in this period in the current mode"
    )


@pytest.mark.parametrize(
    "period",
    [
        "",
        "0s",
        "5",
        "s",
        "1.5m",
        "-3s",
        "+3s",
        "1M",
        "1w",
        "500ms",
        "1 m",
        "366d",
        "9" * 40 + "s",
        "٣s",
        "1m\n",
        "null",
    ],
)
def test_a_bad_period_is_named_with_the_accepted_form(client: testing.TestClient, period: str) -> None:
    answer = client.simulate_get("/prices/highest/BTCUSDT", params={"period": period})
    assert problem(answer) == (400, "/problems/bad-parameter")
    assert answer.json["detail"].startswith(
        "period: an integer and one of s, m, h, d is expected, from 1s to 365d, such as 30s; got "
    )


@pytest.mark.parametrize(
    ("path", "query", "names"),
    [
        ("/prices/highest/BTCUSDT", "period=1m&period=5m", "period: it may be given once"),
        ("/prices/highest/BTCUSDT", "period=1m&period=1m", "period: it may be given once"),
        ("/prices/highest/BTCUSDT", "Period=5m", "Period: this is not a parameter here"),
        ("/prices/average/exchange1/BTCUSDT", "period=5m&depth=3", "depth: this is not a parameter here"),
        ("/prices/latest/BTCUSDT", "period=5m", "period: this is not a parameter here"),
        ("/prices/latest", "x", "x: this is not a parameter here"),
        ("/mode", "mode=test", "mode: this is not a parameter here"),
        ("/prices/latest/BTCUSDT", "%00=%ff", "\\x00: this is not a parameter here"),
    ],
)
def test_a_query_parameter_that_would_have_no_effect_is_named(
    client: testing.TestClient, path: str, query: str, names: str
) -> None:
    answer = client.simulate_get(path, query_string=query)
    assert problem(answer) == (400, "/problems/bad-parameter")
    assert answer.json["detail"].startswith(names)


def test_probes_and_scrapers_may_add_parameters(client: testing.TestClient) -> None:
    for path in ("/health", "/health/ready", "/metrics", "/docs", "/openapi.json"):
        assert client.simulate_get(path, query_string="t=123").status_code == 200


def test_other_methods_are_refused_with_those_allowed(client: testing.TestClient) -> None:
    for method, path, allowed in [
        ("DELETE", "/prices/latest/BTCUSDT", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/mode", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/mode/live", {"POST", "OPTIONS"}),
        ("TRACE", "/health", {"GET", "HEAD", "OPTIONS"}),
    ]:
        answer = client.simulate_request(method, path)
        assert problem(answer) == (405, "/problems/method-not-allowed")
        assert set(answer.headers["Allow"].split(", ")) == allowed


def test_bodies_are_bounded(client: testing.TestClient) -> None:
    def post(headers: dict[str, str], body: bytes = b"") -> testing.Result:
        return client.simulate_post("/mode/test", body=body, headers=headers, remote_addr="127.0.0.1")

    assert post({}, b"{}").status_code == 200
    assert post({}, b"x" * 1024).status_code == 200
    assert problem(post({}, b"x" * 1025)) == (413, "/problems/body-too-large")
    assert problem(post({"Content-Length": "9" * 1000})) == (413, "/problems/body-too-large")
    assert problem(post({"Transfer-Encoding": "chunked"})) == (411, "/problems/length-required")
    answer = client.simulate_get("/prices/latest/BTCUSDT", body="x" * 2000)
    assert problem(answer) == (413, "/problems/body-too-large")


@pytest.mark.parametrize("length", ["-1", "ten", "1e3", "+5", "\xb2", "1_0"])
def test_a_length_that_is_no_number_is_refused(client: testing.TestClient, length: str) -> None:
    start = testing.StartResponseMock()
    # Called directly: Falcon's test client is too careful to send this.
    body = b"".join(client.app(testing.create_environ("/mode", headers={"Content-Length": length}), start))
    assert start.status == "400 Bad Request"
    assert json.loads(body)["type"] == "/problems/bad-request"


def test_when_nothing_can_answer(client: testing.TestClient, market: MemoryMarket) -> None:
    market.away = True
    for method, path in [
        ("GET", "/prices/latest/BTCUSDT"),
        ("GET", "/prices/highest/exchange1/BTCUSDT"),
        ("POST", "/mode/test"),
    ]:
        answer = client.simulate_request(method, path, remote_addr="127.0.0.1")
        assert problem(answer) == (503, "/problems/unavailable")
        assert answer.headers["Retry-After"] == "1"
        assert "10.1.2.3" not in answer.text


def test_a_fault_of_our_own_is_logged_with_its_traceback_and_not_shown(
    client: testing.TestClient, market: MemoryMarket
) -> None:
    market.broken = True
    with structlog.testing.capture_logs() as logged:
        answer = client.simulate_get("/prices/latest/BTCUSDT", headers={"X-Request-ID": "abc-1"})
    assert problem(answer) == (500, "/problems/internal")
    assert "secret" not in answer.text
    (entry,) = logged
    assert entry["exc_info"]
    assert (entry["event"], entry["log_level"], entry["request_id"]) == ("request failed", "error", "abc-1")


@pytest.mark.parametrize("given", ["abc", "A" * 64, "0-1_2.3"])
def test_a_valid_request_id_is_echoed(client: testing.TestClient, given: str) -> None:
    assert client.simulate_get("/mode", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "A" * 65, "a b", "a;b", 'x"', "é", "a\x1b[31m"])
def test_any_other_request_id_is_replaced_by_a_new_one(client: testing.TestClient, given: str) -> None:
    first, second = (client.simulate_get("/mode", headers={"X-Request-ID": given}) for _ in range(2))
    assert given not in {first.headers["X-Request-ID"], second.headers["X-Request-ID"]}
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


def test_cors_is_off_by_default_and_names_the_configured_origins(
    client: testing.TestClient, market: MemoryMarket
) -> None:
    def headers(client: testing.TestClient, origin: str) -> Any:
        return client.simulate_get("/prices/latest/BTCUSDT", headers={"Origin": origin}).headers

    assert not [name for name in headers(client, "https://a.example") if name.startswith("access-control")]
    settings = ApiSettings(symbols=SYMBOLS, exchanges=EXCHANGES, cors_origins=("https://a.example",), request_log="off")
    opened = testing.TestClient(create_app(market, settings))
    assert headers(opened, "https://a.example")["Access-Control-Allow-Origin"] == "https://a.example"
    assert "Access-Control-Allow-Origin" not in headers(opened, "https://b.example")
    any_origin = testing.TestClient(
        create_app(market, ApiSettings(symbols=SYMBOLS, exchanges=EXCHANGES, cors_origins=("*",), request_log="off"))
    )
    assert headers(any_origin, "https://b.example")["Access-Control-Allow-Origin"] == "*"


def test_every_problem_body_is_json(client: testing.TestClient) -> None:
    answer = client.simulate_get('/prices/latest/"}{\\')
    assert json.loads(answer.content)["type"] == "/problems/unknown-symbol"
