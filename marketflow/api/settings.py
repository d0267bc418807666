"""What the composition root tells the API."""

from dataclasses import dataclass, field

from marketflow.api.request_log import LogFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """Settings of the REST API."""

    symbols: tuple[str, ...]
    """Symbols that are served; errors and the description of the API name them."""
    exchanges: tuple[str, ...]
    """Exchanges that are served, as for the symbols."""
    admin_token: str = field(default="", repr=False)
    """Bearer token that POST /mode/* asks for; empty: only loopback clients may switch."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may read the API, or "*" alone; empty: none but its own."""
    max_body: int = 1024
    """Longest body of a request in bytes; no route needs one."""
    request_log: LogFormat = "console"
    """How the line of each request is written; "off" for levels above info."""
