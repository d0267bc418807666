"""A node with nothing in it, for tests of what runs nodes: a small WSGI application with the node's life around it."""

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from marketflow.adapters.embedded import Endpoints
from marketflow.config import Settings
from marketflow.errors import StartupError


class StandinNode:
    """Answers with its process id; `/give-up`, `/slow` and `/fail` do what their names say."""

    def __init__(self, settings: Settings, endpoints: Endpoints) -> None:
        self.settings = settings
        self.endpoints = endpoints
        self._give_up: Callable[[], None] = lambda: None

    def on_give_up(self, callback: Callable[[], None]) -> None:
        """Say whom to tell."""
        self._give_up = callback

    def start(self) -> None:
        """Start; refuses when the admin token says so."""
        if self.settings.server.admin_token.get_secret_value() == "refuse":
            raise StartupError("PostgreSQL refused: password authentication failed")

    def stop(self) -> None:
        """Stop, and leave a note of it."""
        note = self.settings.storage.data_dir / f"stopped-{os.getpid()}"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text("")

    def app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer."""
        path = environ["PATH_INFO"]
        if path == "/give-up":
            self._give_up()
        if path == "/slow":
            threading.Event().wait(1.0)
        if path == "/fail":
            raise RuntimeError("on demand")
        body = {
            "/exchanges": ",".join(f"{each.name}={each.port}" for each in self.settings.testgen.exchanges),
            "/endpoints": " ".join(self.endpoints),
        }.get(path, str(os.getpid()))
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body.encode()]


def build(settings: Settings, endpoints: Endpoints) -> StandinNode:
    """Make one."""
    return StandinNode(settings, endpoints)
