"""The line that each request leaves in the log."""

from collections.abc import Callable
from time import gmtime, strftime, time
from typing import Final, Literal, Protocol, TypeAlias

import msgspec
import structlog

LogFormat: TypeAlias = Literal["console", "json", "off"]


class LogRequest(Protocol):
    """Logs one request; the duration is in milliseconds."""

    def __call__(self, request_id: str, method: str, path: str, status: int, duration_ms: float) -> None: ...


class _Line(msgspec.Struct, gc=False):
    timestamp: str
    level: str
    event: str
    request_id: str
    method: str
    path: str
    status: int
    duration_ms: float


def request_log(log_format: LogFormat) -> LogRequest:
    """Return what logs requests to where structlog is configured to write.

    At ten thousand lines a second structlog's processors would cost as much as the answers, so that the line is written
    in one piece and handed to structlog's output.
    """
    if log_format == "off":
        return _ignore
    output = structlog.get_config()["logger_factory"]()
    takes_text = isinstance(output, structlog.PrintLogger | structlog.WriteLogger)
    return _json(output.info, takes_text) if log_format == "json" else _console(output.info, takes_text)


def _ignore(request_id: str, method: str, path: str, status: int, duration_ms: float) -> None:
    pass


def _json(write: Callable[[str | bytes], object], takes_text: bool) -> LogRequest:
    encode: Final = msgspec.json.Encoder().encode
    now = _Now()

    def log(request_id: str, method: str, path: str, status: int, duration_ms: float) -> None:
        line = encode(_Line(now.text(), "info", "request", request_id, method, path, status, round(duration_ms, 3)))
        write(line.decode() if takes_text else line)

    return log


def _console(write: Callable[[str | bytes], object], takes_text: bool) -> LogRequest:
    now = _Now()

    def log(request_id: str, method: str, path: str, status: int, duration_ms: float) -> None:
        line = (
            f"{now.text()} [info     ] request "
            f"{method} {path} {status} duration_ms={duration_ms:.3f} request_id={request_id}"
        )
        write(line if takes_text else line.encode())

    return log


class _Now:
    """The time of day in ISO 8601; writes date and time anew once a second only."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self) -> str:
        now = time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._text = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
        return f"{self._text}.{int((now - second) * 1_000_000):06d}Z"
