"""The parent process: starts the servers, testgen and gunicorn, tells where to look, and stops all of it in order."""

import errno
import os
import pickle
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, closing, suppress
from types import FrameType, TracebackType
from typing import Any

import click
import structlog

from marketflow import logs
from marketflow.adapters.embedded import EmbeddedServers, Endpoints
from marketflow.config import Settings
from marketflow.errors import StartupError
from marketflow.server.generator import Generator
from marketflow.server.job import FAILED, NODE, READY, Job
from marketflow.service import with_parent, without_settings

_log = structlog.get_logger(component="server")

_BACKLOG = 2048
_HTTP_STOP_S = 8.5
"""A little more than gunicorn's own grace."""


def run(settings: Settings, build: str = NODE) -> None:
    """Run everything until a signal stops it. Raises StartupError for what else ends it. `build` names the function,
    `module:name`, that makes the node of a worker."""
    logs.configure(settings.log.level, settings.log.format)
    with _Signals() as signals, ExitStack() as stack:
        # First of all: a port that is taken ends it before anything was started.
        listener = stack.enter_context(closing(_listen(settings.server.host, settings.server.port)))
        endpoints = _servers(stack, settings)
        if not settings.testgen.exchanges:
            generator = Generator(settings)
            stack.callback(generator.stop)
            settings = generator.start()
        http = stack.enter_context(_Http(listener, settings, endpoints, build))
        signals.at_once = http.kill
        # Only gunicorn accepts; once it stops, clients are to be refused and not to wait.
        url = _url(listener)
        listener.close()
        http.serve(url, settings.symbols.allowed[0])
    if signals.stopped:
        _log.info("stopped")


def _servers(stack: ExitStack, settings: Settings) -> Endpoints:
    """Start the embedded servers that are needed and return where all are."""
    url, dsn = settings.redis.url.get_secret_value(), settings.postgres.dsn.get_secret_value()
    if url and dsn:
        return Endpoints(url, dsn)
    servers = EmbeddedServers(settings.storage.data_dir, redis=not url, postgres=not dsn)
    embedded = stack.enter_context(servers)
    return Endpoints(url or embedded.redis_url, dsn or embedded.postgres_dsn)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        dual = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise StartupError(f"cannot listen on {where}: the port is taken (server.port names another)") from None
        raise StartupError(f"cannot listen on {where}: {error.strerror} (server.host, server.port)") from None


def _url(listener: socket.socket) -> str:
    """Return how a client on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{reachable}:{port}"


class _Stopped(BaseException):
    """The first signal: leave whatever is under way, and stop what runs."""


class _Signals:
    """SIGINT and SIGTERM: the first unwinds the run, the second ends it at once."""

    def __init__(self) -> None:
        self.stopped = False
        self.at_once: Any = lambda: None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        return kind is _Stopped

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if not self.stopped:
            self.stopped = True
            raise _Stopped
        self.at_once()
        # The kernel stops the servers by itself when we are gone.
        os._exit(1)


class _Http:
    """The gunicorn process."""

    def __init__(self, listener: socket.socket, settings: Settings, endpoints: Endpoints, build: str) -> None:
        self._reports, channel = os.pipe()
        # Stopped by us, in order, and not by Ctrl-C in a terminal; and by the kernel if we are killed.
        self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
            [*with_parent(signal.SIGTERM), sys.executable, "-P", "-m", "marketflow.server"],
            stdin=subprocess.PIPE,
            pass_fds=(listener.fileno(), channel),
            start_new_session=True,
            env=without_settings(),
        )
        os.close(channel)
        job = Job(settings, endpoints, build, listener.fileno(), channel)
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe, for the type checker
        with suppress(BrokenPipeError), self._process.stdin as pipe:
            pickle.dump(job, pipe)

    def __enter__(self) -> "_Http":
        return self

    def serve(self, url: str, symbol: str) -> None:
        """Wait for its end. Raises StartupError with the reason it gives."""
        told = False
        with open(self._reports, encoding="utf-8", errors="replace") as reports:  # noqa: PTH123 - a file descriptor
            for line in reports:
                what, _, text = line.rstrip().partition(" ")
                if what == READY and not told:
                    told = True
                    _tell(url, symbol)
                elif what == FAILED:
                    raise StartupError(text)
        raise StartupError(f"the HTTP server ended by itself, with status {self._process.wait()}")

    def kill(self) -> None:
        """End it and its workers at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_HTTP_STOP_S)
        except subprocess.TimeoutExpired:
            _log.error("the HTTP server does not stop, is killed")
        # Also workers whose parent was killed.
        self.kill()
        self._process.wait()


def _tell(url: str, symbol: str) -> None:
    lines = (
        f"MarketFlow serves {url}/prices/latest/{symbol}. Try:",
        f"  curl {url}/prices/latest/{symbol}",
        f"  curl '{url}/prices/highest/{symbol}?period=30s'",
        f"  curl {url}/health",
    )
    with suppress(OSError):
        click.echo("\n".join(lines))
        sys.stdout.flush()
