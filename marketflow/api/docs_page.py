"""The page /docs: Swagger UI, served from the package so that it needs no other server."""

from importlib.resources import files
from pathlib import Path
from typing import Final

STATIC: Final = Path(str(files("marketflow.api"))) / "static"
"""Directory of the files that are served under /docs/static; see its README for where they come from."""

DOCS_HTML: Final = (STATIC / "docs.html").read_bytes()

DOCS_HEADERS: Final = {
    # Scripts and requests from and to this server alone; Swagger UI sets styles inline and shows embedded images.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
