"""An exchange under a test's control: a TCP server that sends the given bytes, cuts, refuses or falls silent."""

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Iterable

from tests.support.oracle import Oracle

HOST = "127.0.0.1"
_SEND_TIMEOUT = 60.0  # seconds that a client may take nothing before a test fails


def line(symbol: str, price: float, timestamp: int) -> bytes:
    """Return a tick as a line."""
    return json.dumps({"symbol": symbol, "price": price, "timestamp": timestamp}).encode() + b"\n"


def now_ms() -> int:
    """Return Unix ms."""
    return time.time_ns() // 1_000_000


class FeedServer:
    """One exchange on one port; what it sends goes to the newest connection, and to the oracle."""

    def __init__(self, name: str, oracle: Oracle) -> None:
        self.name = name
        self._oracle = oracle
        self._changed = threading.Condition()
        self._client: socket.socket | None = None
        self._abandoned: list[socket.socket] = []
        self.connections = 0
        """Connections taken so far."""
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]

    def send(self, data: bytes, timeout: float = 30.0) -> None:
        """Send bytes as they are, once somebody is connected."""
        client = self._wait_for_client(timeout)
        self._oracle.sent(self.name, data, now_ms())
        client.sendall(data)

    def send_ticks(self, ticks: Iterable[tuple[str, float, int]], timeout: float = 30.0) -> None:
        """Send ticks (symbol, price, Unix ms)."""
        self.send(b"".join(line(*tick) for tick in ticks), timeout)

    def send_bytewise(self, data: bytes) -> None:
        """Send bytes so that each has a segment of its own."""
        client = self._wait_for_client(30.0)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._oracle.sent(self.name, data, now_ms())
        for at in range(len(data)):
            client.sendall(data[at : at + 1])

    def cut(self) -> None:
        """End the connection; what was sent still arrives."""
        with self._changed:
            client, self._client = self._client, None
        if client is not None:
            self._oracle.cut(self.name)
            # A close with unread bytes would be a reset, which takes what is on its way along.
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)
            client.close()

    def abandon(self) -> None:
        """Leave the connection half-open: nothing more comes on it, and no end either."""
        with self._changed:
            client, self._client = self._client, None
        if client is not None:
            self._oracle.cut(self.name)
            self._abandoned.append(client)

    def refuse(self) -> None:
        """Cut, and refuse connections until `accept`."""
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.cut()

    def accept(self) -> None:
        """Take connections again, on the same port."""
        self._listener = self._listen(self.port)

    def wait_connected(self, timeout: float = 30.0) -> None:
        """Return once somebody is connected."""
        self._wait_for_client(timeout)

    def close(self) -> None:
        """End everything."""
        with contextlib.suppress(OSError):
            self.refuse()
        for client in self._abandoned:
            client.close()

    def _wait_for_client(self, timeout: float) -> socket.socket:
        with self._changed:
            if self._client is not None and _has_left(self._client):
                self._drop()
            if not self._changed.wait_for(lambda: self._client is not None, timeout):
                raise TimeoutError(f"nobody connected to {self.name} within {timeout:g} s")
            assert self._client is not None
            return self._client

    def _drop(self) -> None:
        """Forget a client that is not there any more."""
        if self._client is not None:
            self._oracle.cut(self.name)
            self._client.close()
            self._client = None

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server((HOST, port))
        threading.Thread(target=self._take, args=(listener,), name=f"exchange {self.name}", daemon=True).start()
        return listener

    def _take(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.settimeout(_SEND_TIMEOUT)
            with self._changed:
                self._drop()  # it would not have come again otherwise
                self._client = client
                self.connections += 1
                self._changed.notify_all()


def _has_left(client: socket.socket) -> bool:
    """Tell whether the other side has closed: a reader of prices has nothing to say otherwise."""
    readable, _, _ = select.select([client], [], [], 0)
    try:
        return bool(readable) and client.recv(1) == b""
    except OSError:
        return True
