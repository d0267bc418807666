"""Puts the API together."""

import falcon
from prometheus_client import CollectorRegistry

from marketflow.api.auth import Guard
from marketflow.api.docs_page import STATIC
from marketflow.api.errors import add_error_handlers
from marketflow.api.middleware import RequestMiddleware
from marketflow.api.openapi import document
from marketflow.api.operations import Context
from marketflow.api.request_log import request_log
from marketflow.api.routes import ROUTES
from marketflow.api.settings import ApiSettings
from marketflow.ports import Market


def create_app(
    market: Market, settings: ApiSettings, registry: CollectorRegistry | None = None
) -> falcon.App[falcon.Request, falcon.Response]:
    """Return the REST API over a market, as a WSGI application.

    Request times go to `registry`, for `market.metrics()` to show; without one they are kept to the application.
    Configure structlog before: the request log goes where it writes.
    """
    app = falcon.App(
        middleware=RequestMiddleware(
            settings.max_body,
            registry or CollectorRegistry(),
            request_log(settings.request_log),
            {route.template: route.path for route in ROUTES},
        )
    )
    if settings.cors_origins:
        origins = "*" if settings.cors_origins == ("*",) else list(settings.cors_origins)
        app.add_middleware(falcon.CORSMiddleware(allow_origins=origins, expose_headers=["X-Request-ID"]))
    add_error_handlers(app, settings)
    context = Context(market, Guard(settings.admin_token), document(ROUTES, settings, market.retention))
    for route in ROUTES:
        app.add_route(route.template, route.make(context))
    app.add_static_route("/docs/static", STATIC)
    return app
