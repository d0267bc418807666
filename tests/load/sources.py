"""What feeds a system under measurement: testgen as a process, and a feed of our own for single ticks."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psutil

HOST = "127.0.0.1"
_LISTENING = re.compile(rb"listening (\S+) \S+:(\d+)\n")
_CONNECT_TIMEOUT = 20.0  # seconds

Exchanges = list[dict[str, Any]]
"""As a configuration names them."""


class Testgen(NamedTuple):
    """A running testgen."""

    process: psutil.Process
    exchanges: Exchanges

    @property
    def ports(self) -> list[int]:
        """Where it listens."""
        return [exchange["port"] for exchange in self.exchanges]


def names(count: int) -> list[str]:
    """Return the names of so many exchanges."""
    return [f"exchange{number}" for number in range(1, count + 1)]


def symbols(count: int) -> list[str]:
    """Return the symbols that testgen uses for `--symbol-count`."""
    return [f"SYM{number:04d}USDT" for number in range(count)]


@contextmanager
def generator(feeds: int = 3, *options: str, rate: float = 0) -> Iterator[Testgen]:
    """Run testgen with so many exchanges; `rate` is in ticks per second and exchange, 0 for a flood."""
    listen = [word for name in names(feeds) for word in ("--listen", f"{name}={HOST}:0")]
    command = [sys.executable, "-c", "from testgen.cli import main; main()", *listen, "--rate", f"{rate:g}"]
    process = subprocess.Popen([*command, "--seed", "1", *options], stdout=subprocess.PIPE)
    try:
        yield Testgen(psutil.Process(process.pid), _listening(process, feeds))
    finally:
        process.terminate()
        process.communicate()


def _listening(process: "subprocess.Popen[bytes]", feeds: int) -> Exchanges:
    assert process.stdout is not None
    found = [_LISTENING.fullmatch(process.stdout.readline()) for _ in range(feeds)]
    assert all(found), "testgen did not start"
    return [{"name": match[1].decode(), "host": HOST, "port": int(match[2])} for match in found if match]


class ProbeFeed:
    """An exchange that sends a single tick when told to."""

    name = "probe"

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self._listener = socket.create_server((HOST, 0))
        self._listener.settimeout(_CONNECT_TIMEOUT)
        self._client: socket.socket | None = None

    @property
    def exchange(self) -> dict[str, Any]:
        """Itself as a configuration names it."""
        return {"name": self.name, "host": HOST, "port": self._listener.getsockname()[1]}

    def accept(self) -> None:
        """Take the newest connection."""
        if self._client is not None:
            self._client.close()
        self._client, _ = self._listener.accept()
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, price: float) -> None:
        """Send a tick of now."""
        assert self._client is not None, "nobody is connected"
        now = time.time_ns() // 1_000_000
        self._client.sendall(b'{"symbol":"%s","price":%r,"timestamp":%d}\n' % (self.symbol.encode(), price, now))

    def close(self) -> None:
        """End it."""
        self._listener.close()
        if self._client is not None:
            self._client.close()


@contextmanager
def probe_feed(symbol: str) -> Iterator[ProbeFeed]:
    """Run a feed of our own."""
    feed = ProbeFeed(symbol)
    try:
        yield feed
    finally:
        feed.close()


def live_and_test(live: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the configuration of a system that starts in test mode on these exchanges, with others in live mode."""
    return {"live": {"exchanges": list(live)}, "testgen": {"exchanges": list(test)}}
