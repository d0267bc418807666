"""The API over the market of the examples, on gunicorn's gevent worker in a process of its own."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

import falcon

from marketflow.api import ApiSettings, create_app
from tests.support.market import EXCHANGES, SYMBOLS, example_market
from tests.support.waiting import wait_until


def build() -> falcon.App[falcon.Request, falcon.Response]:
    """Return the application; gunicorn calls this."""
    market = example_market()
    settings = ApiSettings(
        symbols=SYMBOLS,
        exchanges=EXCHANGES,
        admin_token=os.environ.get("API_TEST_TOKEN", ""),
        request_log="json",
    )
    return create_app(market, settings, market.registry)


class ApiServer:
    """A served application. `address` is where; `output` what it wrote, once it has ended."""

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int] | str) -> None:
        self.family = family
        self.address = address

    def connect(self, timeout: float = 10.0) -> socket.socket:
        """Return a connection to it."""
        connection = socket.socket(self.family, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        connection.connect(self.address)
        return connection

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send raw bytes, and return the status and all that came until the server closed; 0 for no answer."""
        with self.connect() as connection:
            received = b""
            # A server that has refused already may close before all is sent, or reset what is not read.
            with contextlib.suppress(OSError):
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while chunk := connection.recv(65536):
                    received += chunk
        return (int(received[9:12]) if received.startswith(b"HTTP/1.1 ") else 0), received


@contextlib.contextmanager
def serve(address: tuple[str, int] | str, *, token: str = "", options: Sequence[str] = ()) -> Iterator[ApiServer]:
    """Serve on a TCP address with port 0, or on the path of a unix socket; stop at the end."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen()
        command = [sys.executable, "-m", "gunicorn", "tests.support.api_server:build()", "--worker-class=gevent"]
        command += [
            f"--bind=fd://{listener.fileno()}",
            "--no-control-socket",
            "--http-parser=python",
            "--graceful-timeout=1",
            *options,
        ]
        environment = os.environ | {"API_TEST_TOKEN": token}
        process = subprocess.Popen(
            command,
            pass_fds=[listener.fileno()],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        server = ApiServer(family, listener.getsockname())
        try:
            wait_until(
                lambda: server.ask(b"GET /mode HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")[0], "an answer"
            )
            yield server
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=10)
        assert "Traceback" not in errors, errors
