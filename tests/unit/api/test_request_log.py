"""Each request leaves one line, in the format and where the rest of the log goes."""

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
import structlog
from falcon import testing

from marketflow import logs
from marketflow.api import ApiSettings, create_app
from marketflow.api.request_log import LogFormat
from tests.support.market import EXCHANGES, SYMBOLS, MemoryMarket


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def _client(market: MemoryMarket, request_log: LogFormat) -> testing.TestClient:
    return testing.TestClient(
        create_app(market, ApiSettings(symbols=SYMBOLS, exchanges=EXCHANGES, request_log=request_log))
    )


def test_json_lines_hold_id_method_path_status_and_duration(market: MemoryMarket) -> None:
    out = io.BytesIO()
    structlog.configure(logger_factory=structlog.BytesLoggerFactory(out))
    client = _client(market, "json")
    client.simulate_get("/prices/latest/BTCUSDT", headers={"X-Request-ID": "abc"})
    answer = client.simulate_head("/nowhere")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first.pop("timestamp"))
    assert 0 < first.pop("duration_ms") < 1000
    assert first == {
        "level": "info",
        "event": "request",
        "request_id": "abc",
        "method": "GET",
        "path": "/prices/latest/BTCUSDT",
        "status": 200,
    }
    assert (second["method"], second["status"]) == ("HEAD", 404)
    assert second["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("takes_bytes", [True, False])
def test_console_lines_hold_the_same(market: MemoryMarket, takes_bytes: bool) -> None:
    binary, text = io.BytesIO(), io.StringIO()
    structlog.configure(
        logger_factory=structlog.BytesLoggerFactory(binary) if takes_bytes else structlog.PrintLoggerFactory(text)
    )
    _client(market, "console").simulate_get("/mode", headers={"X-Request-ID": "abc"})
    line = binary.getvalue().decode() if takes_bytes else text.getvalue()
    assert re.fullmatch(r"\S+Z \[info +\] request +GET /mode 200 duration_ms=\d+\.\d{3} request_id=abc\n", line)


def test_a_client_cannot_write_lines_or_control_codes_of_its_own(market: MemoryMarket) -> None:
    for request_log in ("console", "json"):
        out = io.StringIO()
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(out))
        _client(market, request_log).simulate_get("/a%0ab%1b[31m" + "x" * 5000)
        assert out.getvalue().count("\n") == 1
        assert "\x1b" not in out.getvalue()
        assert len(out.getvalue()) < 400


def test_it_goes_where_the_program_logs(market: MemoryMarket, capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    _client(market, "json").simulate_get("/mode", headers={"X-Request-ID": "abc"})
    structlog.get_logger().info("another line")
    of_request, other = (json.loads(line) for line in capfd.readouterr().err.splitlines())
    assert (of_request["request_id"], of_request["event"]) == ("abc", "request")
    assert {"timestamp", "level", "event"} == set(other) < set(of_request)


def test_it_can_be_off(market: MemoryMarket) -> None:
    out = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(out))
    _client(market, "off").simulate_get("/mode")
    assert out.getvalue() == ""
