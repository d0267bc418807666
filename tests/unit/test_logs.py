"""Log lines: levels, formats, the standard library's records, and no secret in any of them."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from marketflow import logs


@pytest.fixture(autouse=True)
def afterwards() -> Iterator[None]:
    """Leave logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    out, err = capfd.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def fail(message: str) -> None:
    raise RuntimeError(message)


def test_json_lines_hold_time_level_event_and_context(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger().bind(actor="cache").warning("slow", duration_ms=1.5)
    (line,) = lines(capfd)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "warning",
        "event": "slow",
        "actor": "cache",
        "duration_ms": 1.5,
        "request_id": "r1",
    }


def test_a_record_of_the_standard_library_goes_the_same_way(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    logging.getLogger("actors.runtime").error("restart %d", 3)
    (line,) = lines(capfd)
    assert line.pop("timestamp")
    assert line == {"level": "error", "event": "restart 3", "logger": "actors.runtime"}


def test_levels_below_the_configured_one_are_silent(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "json")
    structlog.get_logger().info("no")
    logging.getLogger("x").info("no")
    structlog.get_logger().warning("yes")
    logging.getLogger("x").warning("yes")
    assert [line["event"] for line in lines(capfd)] == ["yes", "yes"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_passwords_are_taken_out(capfd: pytest.CaptureFixture[str], form: logs.Format) -> None:
    logs.configure("info", form)
    log = structlog.get_logger()
    log.info("to redis://user:s3cret@host/0", dsn="host=h password='s3 s3cret' user=u")
    logging.getLogger("x").info("at %s", "postgresql://u:s3cret@h/db?password=s3cret&x=1")
    try:
        fail("cannot reach rediss://:s3cret@h")
    except RuntimeError:
        log.exception("failed")
        logging.getLogger("x").exception("failed")
    err = capfd.readouterr().err
    assert "s3cret" not in err
    assert err.count("RuntimeError") >= 2
    assert "user:***@host" in err


def test_an_exception_is_one_json_line(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    try:
        fail("boom")
    except RuntimeError:
        structlog.get_logger().exception("failed")
    (line,) = lines(capfd)
    assert line["level"] == "error"
    assert line["exception"].splitlines()[-1] == "RuntimeError: boom"


def test_what_json_does_not_know_is_shown_by_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    structlog.get_logger().info("odd", what=object)
    assert lines(capfd)[0]["what"] == "<class 'object'>"
