"""The OpenAPI 3.1 document, made from the table of routes."""

from collections import defaultdict
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import msgspec

from marketflow import __version__
from marketflow.api import errors as e
from marketflow.api.bodies import Problem
from marketflow.api.errors import PROBLEM_JSON, ProblemType
from marketflow.api.operations import JSON, Answer, Operation, Route
from marketflow.api.resources import DEFAULT_PERIOD
from marketflow.api.settings import ApiSettings
from marketflow.domain.period import format_duration, parse_duration

_MOST_CHOICES: Final = 50

_SCHEMAS: Final = "#/components/schemas/{name}"

# What any request may get, whatever the route.
_ALWAYS: Final = (e.LENGTH_REQUIRED, e.BODY_TOO_LARGE, e.INTERNAL)

_DETAILS: Final = {
    e.BAD_PARAMETER: "period: an integer and one of s, m, h, d is expected, from 1s to 365d, such as 30s; got '5x'",
    e.UNAUTHORIZED: "Send the header Authorization: Bearer <admin_token>",
    e.FORBIDDEN: "No admin_token is configured, so that only clients on this machine may do that",
    e.UNKNOWN_SYMBOL: "'XYZUSDT' is not served; symbols are: BTCUSDT, ETHUSDT",
    e.UNKNOWN_EXCHANGE: "'exchange9' is not served; exchanges are: exchange1, exchange2, exchange3",
    e.NO_DATA: "No tick of ETHUSDT has been received in this period in the current mode",
    e.LENGTH_REQUIRED: "A body in chunks is not accepted; send Content-Length, or no body",
    e.BODY_TOO_LARGE: "A body of at most 1024 bytes is accepted",
    e.INTERNAL: "The failure is in the log of MarketFlow",
    e.UNAVAILABLE: "Neither Redis, memory nor PostgreSQL can answer; GET /health says more",
}


def document(routes: Iterable[Route], settings: ApiSettings, retention: int) -> bytes:
    """Return the document that describes the routes, as JSON. The retention is in milliseconds."""
    routes = tuple(routes)
    structs = {answer.body for route in routes for answer in route.operation.answers if answer.body is not None}
    _, schemas = msgspec.json.schema_components(
        sorted(structs | {Problem}, key=lambda struct: struct.__name__), ref_template=_SCHEMAS
    )
    description: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "MarketFlow",
            "version": __version__,
            "summary": "Real-time market data: latest, highest, lowest and average prices of exchanges.",
            "description": "Times are Unix milliseconds. Errors are problem details (RFC 9457), told apart by `type`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "prices", "description": "Prices, of the mode in force"},
            {"name": "mode", "description": "Live exchanges or the test generator"},
            {"name": "operation", "description": "For operators and their programs"},
            {"name": "description", "description": "The API about itself"},
        ],
        "paths": {route.path: {route.operation.method: _operation(route.path, route.operation)} for route in routes},
        "components": {
            "schemas": schemas,
            "parameters": _parameters(settings, retention),
            "headers": {
                "RequestId": {
                    "description": "Id of the request in the log: the X-Request-ID that was sent, or a new one",
                    "schema": {"type": "string"},
                }
            },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The configured `server.admin_token`; without one, no token is asked for.",
                }
            },
        },
    }
    return msgspec.json.encode(description)


def _parameters(settings: ApiSettings, retention: int) -> dict[str, Any]:
    return {
        "symbol": {
            "name": "symbol",
            "in": "path",
            "required": True,
            "description": "Trading pair, upper case",
            "schema": _one_of(settings.symbols),
        },
        "exchange": {
            "name": "exchange",
            "in": "path",
            "required": True,
            "description": "Name of an exchange, as configured",
            "schema": _one_of(settings.exchanges),
        },
        "period": {
            "name": "period",
            "in": "query",
            "description": "How far back from now: an integer and s, m, h or d, "
            f"from 1s to the retention, {format_duration(retention)}",
            "schema": {
                "type": "string",
                "pattern": period_pattern(retention),
                "maxLength": 13,
                "default": DEFAULT_PERIOD,
            },
            "examples": {value: {"value": value} for value in ("1s", "30s", "5m", "1h", "7d")},
        },
    }


def _one_of(names: tuple[str, ...]) -> dict[str, Any]:
    """Return the schema of a name: a list to choose from, unless it would be too long to choose from."""
    return {"type": "string", "minLength": 1} | ({"enum": list(names)} if len(names) <= _MOST_CHOICES else {})


def period_pattern(retention: int) -> str:
    """Return the regular expression of the periods of 1s to the retention (ms): as exact as the API's own check."""
    units = ((unit, retention // parse_duration(f"1{unit}")) for unit in "smhd")
    return "^0*(" + "|".join(f"({_up_to(most)}){unit}" for unit, most in units if most) + ")$"


def _up_to(most: int) -> str:
    """Return a regular expression of the integers from 1 to `most`: those with fewer digits, those that are less at the
    first, second, … digit, and `most` itself."""
    digits = str(most)
    choices = [f"[1-9][0-9]{{0,{len(digits) - 2}}}"] if len(digits) > 1 else []
    for at, digit in enumerate(digits):
        least = 0 if at else 1
        if int(digit) > least:
            choices.append(f"{digits[:at]}[{least}-{int(digit) - 1}][0-9]{{{len(digits) - at - 1}}}")
    return "|".join([*choices, digits])


def _operation(path: str, operation: Operation) -> dict[str, Any]:
    names = [name for name in ("exchange", "symbol") if f"{{{name}}}" in path]
    if operation.period:
        names.append("period")
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": _responses(operation),
    }
    if operation.description:
        described["description"] = operation.description
    if names:
        described["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in names]
    if operation.secured:
        described["security"] = [{"token": []}, {}]
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    responses = {str(answer.status): _success(answer) for answer in operation.answers}
    by_status: dict[int, list[ProblemType]] = defaultdict(list)
    for problem in (*operation.problems, *_ALWAYS):
        by_status[problem.status].append(problem)
    for status, problems in sorted(by_status.items()):
        responses[str(status)] = _failure(status, problems)
    return responses


def _success(answer: Answer) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if answer.body is not None:
        content["schema"] = {"$ref": _SCHEMAS.format(name=answer.body.__name__)}
    elif answer.media_type == JSON:
        content["schema"] = {"type": "object"}
    else:
        content["schema"] = {"type": "string"}
    if answer.examples:
        content["examples"] = {
            example.request: {"summary": example.request, "value": msgspec.to_builtins(example.body)}
            for example in answer.examples
        }
    return {
        "description": answer.description,
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}},
        "content": {answer.media_type: content},
    }


def _failure(status: int, problems: list[ProblemType]) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = {"description": "Seconds to wait", "schema": {"type": "integer"}}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = {"description": "Bearer", "schema": {"type": "string"}}
    examples = {
        problem.type.rpartition("/")[2]: {
            "value": msgspec.to_builtins(Problem(problem.type, problem.title, status, _DETAILS[problem]))
        }
        for problem in problems
    }
    return {
        "description": " or ".join(f"{problem.title} (`{problem.type}`)" for problem in problems),
        "headers": headers,
        "content": {PROBLEM_JSON: {"schema": {"$ref": _SCHEMAS.format(name="Problem")}, "examples": examples}},
    }
