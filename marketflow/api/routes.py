"""The one table of routes: the application serves it, the OpenAPI document describes it."""

from typing import Final

import msgspec

from marketflow.api import bodies, examples
from marketflow.api import errors as e
from marketflow.api.docs_page import DOCS_HEADERS, DOCS_HTML
from marketflow.api.operations import HTML, JSON, Answer, Context, Example, Make, Operation, Route
from marketflow.api.resources import (
    METRICS_TYPE,
    ActorsResource,
    AllLatestResource,
    ConstantResource,
    HealthResource,
    LatestPriceResource,
    MetricsResource,
    ModeResource,
    PeriodPriceResource,
    ProbeResource,
    SwitchResource,
)
from marketflow.domain.mode import Mode
from marketflow.ports import Kind

_PRICE = (e.BAD_PARAMETER, e.UNKNOWN_SYMBOL, e.NO_DATA, e.UNAVAILABLE)
_EXCHANGE_PRICE = (e.BAD_PARAMETER, e.UNKNOWN_SYMBOL, e.UNKNOWN_EXCHANGE, e.NO_DATA, e.UNAVAILABLE)


def _latest_routes() -> list[Route]:
    def make(context: Context) -> object:
        return LatestPriceResource(context.market)

    return [
        Route(
            "/prices/latest",
            lambda context: AllLatestResource(context.market),
            Operation(
                id="latest_all",
                summary="Latest price of every symbol and exchange",
                description="Symbols and exchanges without a price are left out.",
                answers=(
                    Answer(
                        description="The latest prices, of the mode in force",
                        body=bodies.AllLatestBody,
                        examples=(Example("/prices/latest", examples.ALL_LATEST),),
                    ),
                ),
                problems=(e.BAD_PARAMETER, e.UNAVAILABLE),
            ),
        ),
        Route(
            "/prices/latest/{symbol}",
            make,
            Operation(
                id="latest",
                summary="Latest price of a symbol over all exchanges",
                description="The tick with the greatest timestamp; `exchange` names where it came from.",
                answers=(
                    Answer(
                        description="The latest price",
                        body=bodies.LatestBody,
                        examples=(Example("/prices/latest/BTCUSDT", examples.LATEST),),
                    ),
                ),
                problems=_PRICE,
            ),
        ),
        Route(
            "/prices/latest/{exchange}/{symbol}",
            make,
            Operation(
                id="latest_on_exchange",
                summary="Latest price of a symbol on an exchange",
                answers=(
                    Answer(
                        description="The latest price",
                        body=bodies.LatestBody,
                        examples=(Example("/prices/latest/exchange1/BTCUSDT", examples.LATEST_ON_EXCHANGE),),
                    ),
                ),
                problems=_EXCHANGE_PRICE,
            ),
        ),
    ]


def _period_routes(kind: Kind, overall: msgspec.Struct, on_exchange: msgspec.Struct, says: str) -> list[Route]:
    def make(context: Context) -> object:
        return PeriodPriceResource(context.market, kind)

    body = bodies.AverageBody if kind == "average" else bodies.ExtremeBody
    span = "Exact over the ticks received with `from <= timestamp < to`."
    return [
        Route(
            f"/prices/{kind}/{{symbol}}",
            make,
            Operation(
                id=kind,
                summary=f"{kind.capitalize()} price of a symbol over a period, over all exchanges",
                description=f"{says} {span}",
                period=True,
                answers=(
                    Answer(
                        description=f"The {kind} price",
                        body=body,
                        examples=(Example(f"/prices/{kind}/BTCUSDT?period=30s", overall),),
                    ),
                ),
                problems=_PRICE,
            ),
        ),
        Route(
            f"/prices/{kind}/{{exchange}}/{{symbol}}",
            make,
            Operation(
                id=f"{kind}_on_exchange",
                summary=f"{kind.capitalize()} price of a symbol over a period, on an exchange",
                description=f"{says} {span}",
                period=True,
                answers=(
                    Answer(
                        description=f"The {kind} price",
                        body=body,
                        examples=(Example(f"/prices/{kind}/exchange1/BTCUSDT", on_exchange),),
                    ),
                ),
                problems=_EXCHANGE_PRICE,
            ),
        ),
    ]


def _switch(mode: Mode, example: msgspec.Struct, summary: str) -> Route:
    return Route(
        f"/mode/{mode}",
        lambda context: SwitchResource(context.market, context.guard, mode),
        Operation(
            id=f"switch_to_{mode}",
            tag="mode",
            method="post",
            secured=True,
            summary=summary,
            description="Answers once the mode is in force. Test and live data never mix. A configured admin token is "
            "asked for as a bearer token; when there is none, only clients on the same machine may switch.",
            answers=(
                Answer(
                    description="The mode is in force",
                    body=bodies.SwitchedBody,
                    examples=(Example(f"/mode/{mode}", example),),
                ),
            ),
            problems=(e.BAD_PARAMETER, e.UNAUTHORIZED, e.FORBIDDEN, e.UNAVAILABLE),
        ),
    )


def _mode_routes() -> list[Route]:
    return [
        Route(
            "/mode",
            lambda context: ModeResource(context.market),
            Operation(
                id="mode",
                tag="mode",
                summary="Mode in force",
                answers=(
                    Answer(
                        description="The mode in force",
                        body=bodies.ModeBody,
                        examples=(Example("/mode", examples.MODE),),
                    ),
                ),
                problems=(e.BAD_PARAMETER, e.UNAVAILABLE),
            ),
        ),
        _switch("test", examples.SWITCHED_TO_TEST, "Switch to test mode: prices from the generator"),
        _switch("live", examples.SWITCHED_TO_LIVE, "Switch to live mode: prices from the exchanges"),
    ]


def _probe(path: str, name: str, summary: str, make: Make) -> Route:
    return Route(
        path,
        make,
        Operation(
            id=name,
            tag="operation",
            summary=summary,
            answers=(
                Answer(description="Yes", body=bodies.ProbeBody, examples=(Example(path, examples.PROBE),)),
                Answer(description="No", status=503, body=bodies.ProbeBody),
            ),
        ),
    )


def _operation_routes() -> list[Route]:
    return [
        Route(
            "/health",
            lambda context: HealthResource(context.market),
            Operation(
                id="health",
                tag="operation",
                summary="Health of the node and of what it stands on",
                description="`degraded`: Redis, PostgreSQL or an exchange is away, and prices are still served.",
                answers=(
                    Answer(
                        description="Prices can be served",
                        body=bodies.HealthBody,
                        examples=(Example("/health", examples.HEALTH),),
                    ),
                    Answer(description="Prices cannot be served", status=503, body=bodies.HealthBody),
                ),
            ),
        ),
        _probe("/health/live", "live", "Whether the process runs", lambda context: ProbeResource(context.market.live)),
        _probe("/health/ready", "ready", "Whether it can serve", lambda context: ProbeResource(context.market.ready)),
        Route(
            "/actors",
            lambda context: ActorsResource(context.market),
            Operation(
                id="actors",
                tag="operation",
                summary="The supervision tree",
                answers=(
                    Answer(
                        description="The actors, parents before children",
                        body=bodies.ActorsBody,
                        examples=(Example("/actors", examples.ACTORS),),
                    ),
                ),
                problems=(e.UNAVAILABLE,),
            ),
        ),
        Route(
            "/metrics",
            lambda context: MetricsResource(context.market),
            Operation(
                id="metrics",
                tag="operation",
                summary="Metrics, for Prometheus",
                answers=(Answer(description="Prometheus text format", media_type=METRICS_TYPE),),
                problems=(e.UNAVAILABLE,),
            ),
        ),
        Route(
            "/openapi.json",
            lambda context: ConstantResource(JSON, context.document, {"Cache-Control": "no-cache"}),
            Operation(
                id="openapi",
                tag="description",
                summary="This document",
                answers=(Answer(description="OpenAPI 3.1"),),
            ),
        ),
        Route(
            "/docs",
            lambda _context: ConstantResource(HTML, DOCS_HTML, DOCS_HEADERS),
            Operation(
                id="docs",
                tag="description",
                summary="This document, as a page",
                answers=(Answer(description="A page that needs nothing but this server", media_type=HTML),),
            ),
        ),
    ]


ROUTES: Final[tuple[Route, ...]] = (
    *_latest_routes(),
    *_period_routes(
        "highest", examples.HIGHEST, examples.HIGHEST_ON_EXCHANGE, "Names the exchange and time of that tick."
    ),
    *_period_routes(
        "lowest", examples.LOWEST, examples.LOWEST_ON_EXCHANGE, "Names the exchange and time of that tick."
    ),
    *_period_routes("average", examples.AVERAGE, examples.AVERAGE_ON_EXCHANGE, "Total over count of the ticks."),
    *_mode_routes(),
    *_operation_routes(),
)
