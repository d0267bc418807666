"""The server that MarketFlow is compared with: a bare Falcon resource on the same gunicorn worker.

`python -m tests.load.bare_resource CONFIG` serves until it is told to stop.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import falcon
import msgspec
import psutil

from marketflow.adapters.embedded import Endpoints
from marketflow.config import Settings, load_settings
from marketflow.server.parent import run
from tests.load.machine import cpu_of
from tests.load.requests import Client, rendered
from tests.load.sources import HOST, names
from tests.support.ports import free_port
from tests.support.system import environment, to_toml
from tests.support.waiting import wait_until

_ROOT = Path(__file__).parents[2]
_BODY = {
    "symbol": "BTCUSDT",
    "exchange": "exchange2",
    "price": 67012.5,
    "timestamp": 1763827200123,
    "mode": "live",
    "source": "redis",
    "stale": False,
}
_encode = msgspec.json.Encoder().encode


class _Resource:
    def on_get(self, _req: falcon.Request, resp: falcon.Response, symbol: str) -> None:
        resp.data = _encode(_BODY)
        resp.content_type = falcon.MEDIA_JSON


class _BareNode:
    """What the worker wants of a node, with nothing in it."""

    def __init__(self) -> None:
        self.app: falcon.App[Any, Any] = falcon.App()
        self.app.add_route("/prices/latest/{symbol}", _Resource())

    def start(self) -> None:
        """Nothing is to be started."""

    def stop(self) -> None:
        """Nothing is to be stopped."""

    def on_give_up(self, callback: Callable[[], None]) -> None:
        """It never does."""


def build(_settings: Settings, _endpoints: Endpoints) -> _BareNode:
    """Return the node of a worker."""
    return _BareNode()


@contextmanager
def running_bare() -> Iterator["BareServer"]:
    """Run it on a free port."""
    port = free_port()
    nowhere = {"name": names(1)[0], "host": HOST, "port": 1}
    config: dict[str, dict[str, Any]] = {
        "server": {"host": HOST, "port": port},
        "redis": {"url": f"redis://{HOST}:1"},
        "postgres": {"dsn": f"postgresql://{HOST}:1/none"},
        "testgen": {"exchanges": [nowhere]},
    }
    with TemporaryDirectory() as directory:
        file = Path(directory) / "bare.toml"
        file.write_text(to_toml(config))
        process = psutil.Popen(
            [sys.executable, "-m", "tests.load.bare_resource", str(file)],
            env=environment({"PYTHONPATH": str(_ROOT)}),
            stdout=subprocess.DEVNULL,
        )
        try:
            server = wait_until(lambda: _server(process, port), "the bare server answers", 20)
            yield server
        finally:
            process.terminate()
            process.wait()


class BareServer(NamedTuple):
    """Where it serves, and which process does."""

    port: int
    worker: psutil.Process

    def cpu(self) -> float:
        """Return the CPU seconds that it has used."""
        return cpu_of(self.worker)


def _server(process: psutil.Popen, port: int) -> BareServer | None:
    with suppress(OSError):
        client = Client(port)
        client.ask(rendered("/prices/latest/BTCUSDT"))
        client.close()
        servers = [each for each in process.children(recursive=True) if "marketflow.server" in each.cmdline()]
        known = {each.pid for each in servers}
        return BareServer(port, next(each for each in servers if each.ppid() in known))
    return None


if __name__ == "__main__":
    run(load_settings(Path(sys.argv[1])), "tests.load.bare_resource:build")
