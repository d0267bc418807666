"""What every request passes through: limits, its id, the headers of all answers, the log line and the metrics."""

import itertools
import os
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from time import perf_counter
from typing import Any, NamedTuple

import falcon
from prometheus_client import CollectorRegistry, Histogram

from marketflow.api.errors import BAD_REQUEST, BODY_TOO_LARGE, LENGTH_REQUIRED, Refused, shown
from marketflow.api.request_log import LogRequest

_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_is_request_id = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII).fullmatch


class _Series(NamedTuple):
    """The time series of one route, method and status, found once."""

    observe: Callable[[float], None]
    status: int


class RequestMiddleware:
    """Runs around every request. Costs a few microseconds, so nothing in it is looked up twice."""

    def __init__(self, max_body: int, registry: CollectorRegistry, log: LogRequest, paths: Mapping[str, str]) -> None:
        self._max_body = max_body
        self._paths = paths
        self._histogram = Histogram(
            "marketflow_request_seconds",
            "Time from a request's headers to its answer",
            ("route", "method", "status"),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._series: dict[tuple[str | None, str, Any], _Series] = {}
        self._log = log
        # Unique across workers and restarts by its prefix, and cheaper than a random one each time.
        self._prefix = os.urandom(4).hex()
        self._numbers = itertools.count(1)

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Start the clock, set what all answers have; refuse bodies that no route wants. Raises Refused."""
        env = req.env
        given = env.get("HTTP_X_REQUEST_ID")
        request_id = given if given and _is_request_id(given) else f"{self._prefix}-{next(self._numbers):x}"
        context = req.context
        context.request_id = request_id
        resp.set_header("X-Request-ID", request_id)
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Cache-Control", "no-store")
        context.started = perf_counter()
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
        """Log the request and count it."""
        context = req.context
        try:
            duration = perf_counter() - context.started
        except AttributeError:  # Falcon refused the method before any middleware
            self.process_request(req, resp)
            duration = 0.0
        method = req.method
        key = (req.uri_template, method, resp.status)
        series = self._series.get(key) or self._add_series(key, resp.status_code)
        series.observe(duration)
        self._log(context.request_id, shown(method), shown(req.path), series.status, duration * 1000)

    def _add_series(self, key: tuple[str | None, str, Any], status: int) -> _Series:
        template, method, _ = key
        route = self._paths.get(template or "", "other")
        # A client chooses its method and path: neither may make series without end.
        child = self._histogram.labels(route, method if method in _METHODS else "other", status)
        series = _Series(child.observe, HTTPStatus(status).value)
        if method in _METHODS:
            self._series[key] = series
        return series
