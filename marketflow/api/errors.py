"""Every failure of a request, answered as application/problem+json (RFC 9457)."""

from typing import Any, Final, NamedTuple

import falcon
import msgspec
import structlog

from marketflow.api.bodies import Problem
from marketflow.api.settings import ApiSettings
from marketflow.errors import NoData, Unavailable, UnknownExchange, UnknownSymbol

PROBLEM_JSON: Final = "application/problem+json"

_SHOWN = 64  # characters of a client's text that are worth repeating to it, or to the log


class ProblemType(NamedTuple):
    """A kind of problem: the reference that programs compare, its title and HTTP status."""

    type: str
    title: str
    status: int


BAD_REQUEST: Final = ProblemType("/problems/bad-request", "The request is not well formed", 400)
BAD_PARAMETER: Final = ProblemType("/problems/bad-parameter", "A parameter is not accepted", 400)
UNAUTHORIZED: Final = ProblemType("/problems/unauthorized", "A valid bearer token is needed", 401)
FORBIDDEN: Final = ProblemType("/problems/forbidden", "This client may not do that", 403)
NOT_FOUND: Final = ProblemType("/problems/not-found", "Nothing is served at this path", 404)
UNKNOWN_SYMBOL: Final = ProblemType("/problems/unknown-symbol", "The symbol is not known", 404)
UNKNOWN_EXCHANGE: Final = ProblemType("/problems/unknown-exchange", "The exchange is not known", 404)
NO_DATA: Final = ProblemType("/problems/no-data", "There is no tick to answer from", 404)
METHOD_NOT_ALLOWED: Final = ProblemType("/problems/method-not-allowed", "The method is not allowed here", 405)
LENGTH_REQUIRED: Final = ProblemType("/problems/length-required", "A body needs a Content-Length", 411)
BODY_TOO_LARGE: Final = ProblemType("/problems/body-too-large", "The body is too large", 413)
INTERNAL: Final = ProblemType("/problems/internal", "MarketFlow failed", 500)
UNAVAILABLE: Final = ProblemType("/problems/unavailable", "Nothing can answer now", 503)

PROBLEM_TYPES: Final = (
    BAD_REQUEST,
    BAD_PARAMETER,
    UNAUTHORIZED,
    FORBIDDEN,
    NOT_FOUND,
    UNKNOWN_SYMBOL,
    UNKNOWN_EXCHANGE,
    NO_DATA,
    METHOD_NOT_ALLOWED,
    LENGTH_REQUIRED,
    BODY_TOO_LARGE,
    INTERNAL,
    UNAVAILABLE,
)

_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger("marketflow.api")


class Refused(falcon.HTTPError):
    """A request that is answered with a problem."""

    def __init__(self, problem: ProblemType, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(problem.status, title=problem.title, description=detail, headers=headers)
        self.problem = problem
        self.detail = detail


def shown(text: str) -> str:
    """Return a client's text as it may be repeated: short, and without anything that a terminal would obey."""
    text = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return text if text.isprintable() else ascii(text)[1:-1]


def add_error_handlers(app: falcon.App[falcon.Request, falcon.Response], settings: ApiSettings) -> None:
    """Let the application answer every exception with a problem."""
    symbols = ", ".join(settings.symbols)
    exchanges = ", ".join(settings.exchanges)

    def unknown_symbol(_req: falcon.Request, resp: falcon.Response, _e: Exception, params: dict[str, Any]) -> None:
        _answer(resp, UNKNOWN_SYMBOL, f"{_symbol(params)!r} is not served; symbols are: {symbols}")

    def unknown_exchange(_req: falcon.Request, resp: falcon.Response, _e: Exception, params: dict[str, Any]) -> None:
        _answer(resp, UNKNOWN_EXCHANGE, f"{shown(params['name'])!r} is not served; exchanges are: {exchanges}")

    app.add_error_handler(UnknownSymbol, unknown_symbol)
    app.add_error_handler(UnknownExchange, unknown_exchange)
    app.add_error_handler(NoData, _no_data)
    app.add_error_handler(Unavailable, _unavailable)
    app.add_error_handler(Refused, _refused)
    app.add_error_handler(falcon.HTTPError, _falcon_error)
    app.add_error_handler(Exception, _fault)


def _answer(resp: falcon.Response, problem: ProblemType, detail: str) -> None:
    resp.status = problem.status
    resp.content_type = PROBLEM_JSON
    resp.text = None
    resp.data = _encode(Problem(problem.type, problem.title, problem.status, detail))


def _symbol(params: dict[str, Any]) -> str:
    """Return the symbol asked for: alone it takes the place where else the exchange stands."""
    return shown(params.get("symbol", params["name"]))


def _named(req: falcon.Request) -> dict[str, str | None]:
    """Return what the log calls a request."""
    return {"request_id": req.context.get("request_id"), "method": shown(req.method), "path": shown(req.path)}


def _no_data(req: falcon.Request, resp: falcon.Response, _error: Exception, params: dict[str, Any]) -> None:
    where = f" from {shown(params['name'])}" if "symbol" in params else ""
    when = "" if req.path.startswith("/prices/latest") else " in this period"
    _answer(resp, NO_DATA, f"No tick of {_symbol(params)}{where} has been received{when} in the current mode")


def _unavailable(req: falcon.Request, resp: falcon.Response, error: Exception, _params: dict[str, Any]) -> None:
    _log.warning("request not answered", reason=str(error), **_named(req))
    resp.set_header("Retry-After", "1")
    _answer(resp, UNAVAILABLE, "Neither Redis, memory nor PostgreSQL can answer; GET /health says more")


def _refused(_req: falcon.Request, resp: falcon.Response, error: Refused, _params: dict[str, Any]) -> None:
    if error.headers:
        resp.set_headers(error.headers)
    _answer(resp, error.problem, error.detail)


def _falcon_error(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, _params: dict[str, Any]) -> None:
    """Answer what Falcon refuses by itself."""
    if error.headers:
        resp.set_headers(error.headers)
    match error.status_code:
        case 404:
            _answer(resp, NOT_FOUND, f"{shown(req.path)!r} is no path of this API; GET /docs lists them")
        case 405:
            allowed = resp.get_header("Allow")
            _answer(resp, METHOD_NOT_ALLOWED, f"{shown(req.method)} is not allowed here; allowed: {allowed}")
        case _:
            _answer(resp, BAD_REQUEST, error.description or "The request could not be understood")


def _fault(req: falcon.Request, resp: falcon.Response, _error: Exception, _params: dict[str, Any]) -> None:
    """Answer a fault of our own: the log gets the traceback, the client a line."""
    _log.exception("request failed", **_named(req))
    _answer(resp, INTERNAL, "The failure is in the log of MarketFlow")
