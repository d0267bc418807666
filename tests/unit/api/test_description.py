"""The OpenAPI document and /docs: all that is served is described, all that is described is served."""

import json
import re
from pathlib import Path
from typing import Any

import falcon.inspect
import pytest
from falcon import testing
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from marketflow import __version__
from marketflow.api import ApiSettings, create_app
from marketflow.api.docs_page import STATIC
from marketflow.api.errors import PROBLEM_TYPES
from marketflow.api.openapi import period_pattern
from marketflow.api.routes import ROUTES
from marketflow.domain.period import parse_period
from tests.support.market import EXCHANGES, SYMBOLS, MemoryMarket


@pytest.fixture
def document(client: testing.TestClient) -> dict[str, Any]:
    answer = client.simulate_get("/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    described: dict[str, Any] = answer.json
    return described


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_what_is_served_is_described_and_the_reverse(client: testing.TestClient, document: dict[str, Any]) -> None:
    templates = {route.template: route.path for route in ROUTES}
    served = {
        (templates[route.path], method.method.lower())
        for route in falcon.inspect.inspect_routes(client.app)
        for method in route.methods
        if method.method not in {"HEAD", "OPTIONS"} and not method.internal
    }
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    assert served == described
    assert len(described) == 19


def test_every_status_that_was_ever_seen_is_described(
    client: testing.TestClient, document: dict[str, Any], market: MemoryMarket
) -> None:
    def statuses(away: bool) -> dict[tuple[str, str], set[int]]:
        market.away = away
        return {
            (path, method): {
                client.simulate_request(
                    method.upper(), path.format(symbol=symbol, exchange=exchange), **more
                ).status_code
                for symbol in (*SYMBOLS, "XYZ")
                for exchange in (*EXCHANGES, "nasdaq")
                for more in ({"remote_addr": "127.0.0.1"}, {"query_string": "period=x"}, {"body": "x" * 2000})
            }
            for path, item in document["paths"].items()
            for method in item
        }

    for away in (False, True):
        for (path, method), seen in statuses(away).items():
            assert {str(status) for status in seen} <= set(document["paths"][path][method]["responses"]), path


def test_examples_fit_their_schemas(document: dict[str, Any]) -> None:
    checked = 0
    for item in document["paths"].values():
        for operation in item.values():
            for response in operation["responses"].values():
                for media in response["content"].values():
                    for example in media.get("examples", {}).values():
                        schema = media["schema"] | {"components": document["components"]}  # which it refers to
                        OAS31Validator(schema).validate(example["value"])
                        checked += 1
    assert checked > 100


@settings(max_examples=500)
@given(
    text=st.one_of(
        st.from_regex(r"[0-9]{1,13}[smhdw]", fullmatch=True),
        st.builds("{}{}{}".format, st.sampled_from(["", "0", "000"]), st.integers(0, 400), st.sampled_from("smhd")),
        st.builds("{}s".format, st.integers(30_000_000, 33_000_000)),
        st.text(max_size=4),
    ),
    retention=st.sampled_from([1_000, 59_000, 60_000, 7_200_000, 86_400_000, 31_536_000_000, 31_536_001_000]),
)
def test_the_pattern_of_a_period_accepts_what_the_api_accepts(text: str, retention: int) -> None:
    try:
        parse_period(text, retention)
        accepted = True
    except ValueError:
        accepted = False
    assert (re.fullmatch(period_pattern(retention), text) is not None and len(text) <= 13) == accepted


def test_many_symbols_are_not_listed(market: MemoryMarket) -> None:
    names = tuple(f"S{number}USDT" for number in range(51))
    client = testing.TestClient(create_app(market, ApiSettings(symbols=names, exchanges=names[:50], request_log="off")))
    parameters = client.simulate_get("/openapi.json").json["components"]["parameters"]
    assert "enum" not in parameters["symbol"]["schema"]
    assert parameters["exchange"]["schema"]["enum"] == list(names[:50])


def test_every_operation_has_examples_of_its_problems(document: dict[str, Any]) -> None:
    shown = set()
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["summary"]
            for status, response in operation["responses"].items():
                for media, content in response["content"].items():
                    if media == "application/problem+json":
                        values = [example["value"] for example in content["examples"].values()]
                        assert values
                        assert {value["status"] for value in values} == {int(status)}
                        shown |= {value["type"] for value in values}
    not_of_a_route = {"/problems/bad-request", "/problems/not-found", "/problems/method-not-allowed"}
    assert shown == {problem.type for problem in PROBLEM_TYPES} - not_of_a_route


def test_the_docs_page_uses_nothing_but_this_server(client: testing.TestClient) -> None:
    page = client.simulate_get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; connect-src 'self';")
    assert "unsafe-eval" not in policy
    used = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(used) == 4
    for url in used:
        if url != "data:,":
            assert url.startswith("/docs/static/")
            assert client.simulate_get(url).status_code == 200


def test_static_files_come_with_their_types_and_licence(client: testing.TestClient) -> None:
    kinds = {
        path.name: client.simulate_get(f"/docs/static/{path.name}").headers["Content-Type"] for path in STATIC.iterdir()
    }
    assert kinds["docs.js"].startswith("text/javascript")
    assert kinds["swagger-ui.css"].startswith("text/css")
    assert "LICENSE" in kinds
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < 2_000_000


def test_the_api_document_shows_real_requests_and_answers(client: testing.TestClient, market: MemoryMarket) -> None:
    text = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    exchanges = re.findall(r"```http\n(GET|POST) (\S+)\n```\n+```json\n(.+?)\n```", text, re.DOTALL)
    assert len(exchanges) >= 16
    for method, path, body in exchanges:
        market.switch("live")
        answer = client.simulate_request(method, path, remote_addr="127.0.0.1")
        shown = json.loads(re.sub(r'"version":"[^"]+"', f'"version":"{__version__}"', body))
        assert answer.json == shown, path
        assert list(answer.json) == list(shown), path


def test_the_api_document_names_every_route_and_problem() -> None:
    text = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    for route in ROUTES:
        assert f"`{route.operation.method.upper()} {route.path}`" in text
    for problem in PROBLEM_TYPES:
        assert f"| {problem.status} | `{problem.type}` |" in text
