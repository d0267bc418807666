"""What every request passes through: limits, its id, the headers of all answers, the log line and the metrics."""

import itertools
import os
import re
from collections.abc import Callable
from http import HTTPStatus
from time import perf_counter
from typing import Any, NamedTuple

import falcon
import structlog
from prometheus_client import CollectorRegistry, Histogram

from marketflow.api.errors import BAD_REQUEST, BODY_TOO_LARGE, LENGTH_REQUIRED, Refused, shown

_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_is_request_id = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII).fullmatch


class _Series(NamedTuple):
    """The time series of one route, method and status, found once."""

    observe: Callable[[float], None]
    status: int


class RequestMiddleware:
    """Runs around every request. Costs a few microseconds, so nothing in it is looked up twice."""

    def __init__(self, max_body: int, registry: CollectorRegistry) -> None:
        self._max_body = max_body
        self._histogram = Histogram(
            "marketflow_request_seconds",
            "Time from a request's headers to its answer",
            ("route", "method", "status"),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._series: dict[tuple[str | None, str, Any], _Series] = {}
        self._log = structlog.get_logger("marketflow.api").bind().info
        # Unique across workers and restarts by its prefix, and cheaper than a random one each time.
        self._prefix = os.urandom(4).hex()
        self._numbers = itertools.count(1)

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Start the clock; refuse bodies that no route wants. Raises Refused."""
        req.context.started = perf_counter()
        env = req.env
        if "HTTP_TRANSFER_ENCODING" in env:
            raise Refused(LENGTH_REQUIRED, "A body in chunks is not accepted; send Content-Length, or no body")
        length = env.get("CONTENT_LENGTH")
        if length and length != "0":
            self._check_length(length)

    def _check_length(self, length: str) -> None:
        if not (length.isascii() and length.isdigit()):
            raise Refused(BAD_REQUEST, "Content-Length must be a number of bytes")
        if len(length) > 18 or int(length) > self._max_body:
            raise Refused(BODY_TOO_LARGE, f"A body of at most {self._max_body} bytes is accepted")

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _succeeded: bool) -> None:
        """Finish the headers, log the request, count it."""
        started = getattr(req.context, "started", None)
        duration = 0.0 if started is None else perf_counter() - started
        given = req.env.get("HTTP_X_REQUEST_ID")
        request_id = given if given and _is_request_id(given) else f"{self._prefix}-{next(self._numbers):x}"
        resp.set_header("X-Request-ID", request_id)
        resp.set_header("X-Content-Type-Options", "nosniff")
        if resp.get_header("Cache-Control") is None:
            resp.set_header("Cache-Control", "no-store")
        method = req.method
        key = (req.uri_template, method, resp.status)
        series = self._series.get(key) or self._add_series(key, resp.status_code)
        series.observe(duration)
        path = req.path
        self._log(
            "request",
            id=request_id,
            method=method if method in _METHODS else shown(method),
            path=path if len(path) <= 64 and path.isprintable() else shown(path),
            status=series.status,
            ms=round(duration * 1000, 3),
        )

    def _add_series(self, key: tuple[str | None, str, Any], status: int) -> _Series:
        route, method, _ = key
        # A client chooses its method and path: neither may make series without end.
        child = self._histogram.labels(route or "other", method if method in _METHODS else "other", status)
        series = _Series(child.observe, HTTPStatus(status).value)
        if method in _METHODS:
            self._series[key] = series
        return series
