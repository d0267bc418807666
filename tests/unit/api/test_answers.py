"""Each answer is what the contract words: keys, order, types, values."""

import json

import msgspec
import pytest
from falcon import testing

from marketflow import __version__
from marketflow.api.operations import Example, Route
from marketflow.api.routes import ROUTES
from tests.support.market import MemoryMarket

_EXAMPLES = [
    pytest.param(route.operation.method, example, id=f"{route.operation.method} {example.request}")
    for route in ROUTES
    for answer in route.operation.answers
    for example in answer.examples
]


@pytest.mark.parametrize(("method", "example"), _EXAMPLES)
def test_every_example_is_a_real_answer(client: testing.TestClient, method: str, example: Example) -> None:
    answer = client.simulate_request(method.upper(), example.request, remote_addr="127.0.0.1")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.content == msgspec.json.encode(example.body)


def test_latest_has_the_keys_of_the_contract_in_their_order(client: testing.TestClient) -> None:
    assert client.simulate_get("/prices/latest/BTCUSDT").text == (
        '{"symbol":"BTCUSDT","exchange":"exchange2","price":67012.5,"timestamp":1763827200123,'
        '"mode":"live","source":"redis","stale":false}'
    )


def test_highest_has_the_keys_of_the_contract_in_their_order(client: testing.TestClient) -> None:
    assert client.simulate_get("/prices/highest/BTCUSDT", query_string="period=30s").text == (
        '{"symbol":"BTCUSDT","exchange":"exchange2","price":67100.0,"timestamp":1763827199883,"period":"30s",'
        '"from":1763827170100,"to":1763827200100,"ticks":4500,"mode":"live","source":"redis"}'
    )


def test_an_average_has_no_timestamp_and_names_the_exchange_asked_for(client: testing.TestClient) -> None:
    overall = client.simulate_get("/prices/average/BTCUSDT").json
    on_one = client.simulate_get("/prices/average/exchange3/BTCUSDT").json
    assert list(overall) == ["symbol", "exchange", "price", "period", "from", "to", "ticks", "mode", "source"]
    assert overall["exchange"] is None
    assert on_one["exchange"] == "exchange3"
    assert (overall["period"], overall["to"] - overall["from"], overall["ticks"]) == ("1m", 60_000, 9000)


@pytest.mark.parametrize(
    ("asked", "milliseconds"), [("1s", 1000), ("3s", 3000), ("060s", 60_000), ("3m", 180_000), ("2h", 7_200_000)]
)
def test_the_period_is_echoed_as_it_was_asked_for(client: testing.TestClient, asked: str, milliseconds: int) -> None:
    answer = client.simulate_get("/prices/lowest/BTCUSDT", params={"period": asked}).json
    assert answer["period"] == asked
    assert answer["to"] - answer["from"] == milliseconds


def test_a_switch_changes_what_is_asked(client: testing.TestClient) -> None:
    def post(mode: str) -> object:
        return client.simulate_post(f"/mode/{mode}", remote_addr="127.0.0.1").json

    assert post("live") == {"mode": "live", "previous": "live", "changed": False}
    assert post("test") == {"mode": "test", "previous": "live", "changed": True}
    assert client.simulate_get("/mode").json == {"mode": "test"}
    assert client.simulate_get("/prices/latest").json == {"mode": "test", "prices": []}
    assert post("live") == {"mode": "live", "previous": "test", "changed": True}


def test_health_and_probes_follow_the_market(client: testing.TestClient, market: MemoryMarket) -> None:
    assert client.simulate_get("/health").json["version"] == __version__
    assert [client.simulate_get(path).status_code for path in ("/health", "/health/live", "/health/ready")] == [200] * 3
    market.away = True
    down = client.simulate_get("/health")
    assert (down.status_code, down.json["status"]) == (503, "down")
    not_ready = client.simulate_get("/health/ready")
    assert (not_ready.status_code, not_ready.json) == (503, {"status": "down"})
    assert client.simulate_get("/health/live").json == {"status": "ok"}


def test_metrics_are_prometheus_text_and_count_requests_by_route(client: testing.TestClient) -> None:
    for path in ("/prices/latest/BTCUSDT", "/prices/latest/ETHUSDT", "/prices/latest/exchange1/BTCUSDT", "/nowhere"):
        client.simulate_get(path)
    client.simulate_request("TRACE", "/mode")
    answer = client.simulate_get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    counts = dict(
        line.removeprefix("marketflow_request_seconds_count").rsplit(" ", 1)
        for line in answer.text.splitlines()
        if line.startswith("marketflow_request_seconds_count")
    )
    assert counts == {
        '{method="GET",route="/prices/latest/{symbol}",status="200"}': "2.0",
        '{method="GET",route="/prices/latest/{exchange}/{symbol}",status="200"}': "1.0",
        '{method="GET",route="other",status="404"}': "1.0",
        '{method="other",route="/mode",status="405"}': "1.0",
    }


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_head_answers_as_get_without_a_body_and_options_names_the_methods(
    client: testing.TestClient, route: Route
) -> None:
    path = route.path.format(symbol="BTCUSDT", exchange="exchange1")
    if route.operation.method == "post":
        allowed = {"POST", "OPTIONS"}
    else:
        allowed = {"GET", "HEAD", "OPTIONS"}
        got, head = client.simulate_get(path), client.simulate_head(path)
        assert head.status_code == 200
        assert head.content == b""
        assert int(head.headers["Content-Length"]) > 0
        if path != "/metrics":  # which the first of the two requests changed
            assert head.headers["Content-Length"] == got.headers["Content-Length"]
        assert head.headers["Content-Type"] == got.headers["Content-Type"]
    options = client.simulate_options(path)
    assert options.status_code == 200
    assert set(options.headers["Allow"].split(", ")) | {"OPTIONS"} == allowed


def test_no_price_is_kept_by_caches(client: testing.TestClient) -> None:
    for path in ("/prices/latest/BTCUSDT", "/prices/highest/BTCUSDT", "/mode", "/health", "/nowhere"):
        headers = client.simulate_get(path).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_actors_are_listed_as_the_market_tells(client: testing.TestClient, market: MemoryMarket) -> None:
    assert json.loads(client.simulate_get("/actors").content) == {"actors": market.actors()}
