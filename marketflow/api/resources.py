"""The resources: what is asked of the Market and how its answer is written."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

import falcon
import msgspec

from marketflow.api.auth import Guard
from marketflow.api.bodies import (
    AllLatestBody,
    AverageBody,
    ExtremeBody,
    LatestBody,
    ModeBody,
    ProbeBody,
    SwitchedBody,
)
from marketflow.api.errors import BAD_PARAMETER, Refused, shown
from marketflow.domain.mode import Mode
from marketflow.domain.period import parse_period
from marketflow.ports import Kind, Market

DEFAULT_PERIOD = "1m"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_encode = msgspec.json.Encoder().encode
_parse_period = lru_cache(maxsize=256)(parse_period)


class LatestPriceResource:
    """The newest price of a symbol, over all exchanges or on one."""

    def __init__(self, market: Market) -> None:
        self._latest = market.latest

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str, symbol: str | None = None) -> None:
        if req.query_string:
            _accept(req.params, ())
        answer = self._latest(name, None) if symbol is None else self._latest(symbol, name)
        resp.data = _encode(LatestBody(*answer))

    on_head = on_get


class AllLatestResource:
    """The newest prices of all symbols on all exchanges."""

    def __init__(self, market: Market) -> None:
        self._latest_all = market.latest_all

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        _accept(req.params, ())
        mode, prices = self._latest_all()
        resp.data = _encode(AllLatestBody(mode, [LatestBody(*price) for price in prices]))

    on_head = on_get


class PeriodPriceResource:
    """The highest, lowest or average price of a symbol over a period, over all exchanges or on one."""

    def __init__(self, market: Market, kind: Kind) -> None:
        self._market = market
        self._kind = kind

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str, symbol: str | None = None) -> None:
        market = self._market
        asked = _period_of(req.params) if req.query_string else DEFAULT_PERIOD
        try:
            period = _parse_period(asked, market.retention)
        except ValueError as error:
            raise Refused(BAD_PARAMETER, f"period: {error}; got {shown(asked)!r}") from None
        symbol, exchange = (name, None) if symbol is None else (symbol, name)
        answer = market.period(self._kind, symbol, exchange, period)
        _, found_on, price, timestamp, start, end, ticks, mode, source = answer
        body: AverageBody | ExtremeBody
        if timestamp is None or found_on is None:
            body = AverageBody(symbol, found_on, price, asked, start, end, ticks, mode, source)
        else:
            body = ExtremeBody(symbol, found_on, price, timestamp, asked, start, end, ticks, mode, source)
        resp.data = _encode(body)

    on_head = on_get


class ModeResource:
    """The mode in force."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        _accept(req.params, ())
        resp.data = _encode(ModeBody(self._market.mode()))

    on_head = on_get


class SwitchResource:
    """Puts a mode in force."""

    def __init__(self, market: Market, guard: Guard, mode: Mode) -> None:
        self._market = market
        self._guard = guard
        self._mode = mode

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        self._guard.check(req)
        _accept(req.params, ())
        resp.data = _encode(SwitchedBody(*self._market.switch(self._mode)))


class HealthResource:
    """Health of the node and what it stands on."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        body = self._market.health()
        resp.status = 503 if body["status"] == "down" else 200
        resp.data = _encode(body)

    on_head = on_get


class ProbeResource:
    """A yes or no for an orchestrator."""

    def __init__(self, probe: Callable[[], bool]) -> None:
        self._probe = probe

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        well = self._probe()
        resp.status = 200 if well else 503
        resp.data = _encode(ProbeBody("ok" if well else "down"))

    on_head = on_get


class ActorsResource:
    """The supervision tree."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.data = _encode({"actors": self._market.actors()})

    on_head = on_get


class MetricsResource:
    """The metrics, for Prometheus."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = METRICS_TYPE
        resp.data = self._market.metrics()

    on_head = on_get


class ConstantResource:
    """An answer that never changes while the program runs."""

    def __init__(self, content_type: str, data: bytes, headers: Mapping[str, str]) -> None:
        self._content_type = content_type
        self._data = data
        self._headers = headers

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = self._content_type
        resp.set_headers(dict(self._headers))
        resp.data = self._data

    on_head = on_get


def _accept(params: Mapping[str, object], accepted: Iterable[str]) -> None:
    """Refuse a query parameter that would have no effect: it is most likely a slip."""
    for name in params:
        if name not in accepted:
            takes = "the parameter period alone" if accepted else "no parameters"
            raise Refused(BAD_PARAMETER, f"{shown(name)}: this is not a parameter here; the path takes {takes}")


def _period_of(params: Mapping[str, str | list[str]]) -> str:
    _accept(params, ("period",))
    period = params.get("period", DEFAULT_PERIOD)
    if isinstance(period, list):
        raise Refused(BAD_PARAMETER, f"period: it may be given once, such as period=30s; got it {len(period)} times")
    return period
