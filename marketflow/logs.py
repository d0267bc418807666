"""Logging: one pipeline for structlog and the standard library, as lines for people or JSON for programs, to stderr."""

import logging
import os
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["console", "json"]

_SECRET_IN_URL = re.compile(r"(?<=://)([^\s/@]*):[^\s/@]+@")
_SECRET_IN_DSN = re.compile(r"(password|passwd|secret|token)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s&]+)", re.IGNORECASE)

_QUIETER = {
    "pykka": logging.WARNING,
    "yoyo": logging.WARNING,
    "gevent": logging.WARNING,
}
"""Libraries that tell at their own info what is our debug."""


def configure(level: Level = "info", format: Format = "console") -> None:  # noqa: A002 - the name of the setting
    """Set up logging for this process; may be repeated."""
    least = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _stamp,
        _redact,
    ]
    renderer = _json_renderers() if format == "json" else _console_renderers()
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=_Stderr,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(shared, renderer)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(least)
    for name, quiet in _QUIETER.items():
        logging.getLogger(name).setLevel(max(least, quiet) if least > logging.DEBUG else logging.DEBUG)
    logging.captureWarnings(capture=True)


def _stamp(_logger: WrappedLogger, level: str, event: EventDict) -> EventDict:
    """Add level and time; msgspec makes RFC 3339 of it for less than structlog does, and every request pays for it."""
    event["level"] = level
    event["timestamp"] = datetime.now(UTC)
    return event


def _json_renderers() -> list[Processor]:
    encode = msgspec.json.Encoder(enc_hook=repr).encode

    def render(_logger: WrappedLogger, _name: str, event: EventDict) -> bytes:
        return encode(event)

    return [_exception_as_text, _redact_exception, render]


def _console_renderers() -> list[Processor]:
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )

    def render(logger: WrappedLogger, name: str, event: EventDict) -> bytes:
        event["timestamp"] = event["timestamp"].isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
        return str(console(logger, name, event)).encode("utf-8", "backslashreplace")

    return [_exception_as_text, _redact_exception, render]


def _exception_as_text(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    return structlog.processors.format_exc_info(logger, name, event) if "exc_info" in event else event


def _redact(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Take passwords out of URLs and DSNs: libraries quote in their messages what they were given."""
    for key, value in event.items():
        if type(value) is str and ("://" in value or "=" in value):
            event[key] = redact(value)
    return event


def _redact_exception(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    return _redact(logger, name, event) if "exception" in event else event


def redact(text: str) -> str:
    """Return a text without the passwords of the URLs and DSNs in it."""
    return _SECRET_IN_DSN.sub(r"\1=***", _SECRET_IN_URL.sub(r"\1:***@", text))


class _Stderr:
    """Standard error, one write a line. Nobody fails because nobody reads it any more, as after `2>&1 | head`."""

    def __init__(self, *_name: object) -> None:
        """Take the name of a logger, as structlog's factories do."""

    def write(self, line: bytes) -> None:
        with suppress(OSError):
            os.write(2, line + b"\n")

    debug = info = warning = error = critical = write


class _Handler(logging.Handler):
    """Sends records of the standard library through the same pipeline."""

    def __init__(self, shared: list[Processor], renderer: list[Processor]) -> None:
        super().__init__()
        self._processors = [*shared, *renderer]
        self._stderr = _Stderr()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event: Any = {"event": record.getMessage(), "logger": record.name}
            if record.exc_info:
                event["exc_info"] = record.exc_info
            for processor in self._processors:
                event = processor(None, record.levelname.lower(), event)
            self._stderr.write(event)
        except Exception:  # noqa: BLE001 - a handler must not fail its caller; logging's own way to say so
            self.handleError(record)
