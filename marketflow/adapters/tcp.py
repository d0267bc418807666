"""The TCP side of an exchange feed: connecting, reading in large chunks, and noticing that nobody is there."""

import socket
from typing import Final

from marketflow.errors import Unavailable

CHUNK: Final = 64 * 1024
"""Most bytes a read returns; a larger chunk would make a flooded node answer its other work late."""
CONNECT_SECONDS: Final = 3.0
SILENCE_SECONDS: Final = 30.0
"""A connection on which nothing arrives for so long is given up: the exchange may be gone without a word."""


class TcpConnection:
    """One open connection; greenlets wait for it cooperatively where sockets are patched."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def read(self) -> bytes:
        """Wait for bytes and return what has arrived; b"" when the exchange has closed. Raises Unavailable."""
        try:
            return self._socket.recv(CHUNK)
        except TimeoutError:
            raise Unavailable(f"nothing received for {SILENCE_SECONDS:.0f} s") from None
        except OSError as error:
            raise Unavailable(f"connection lost: {error.strerror or error}") from None

    def close(self) -> None:
        """Close it; a read that waits ends."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other side was faster
            pass
        finally:
            self._socket.close()


class TcpFeed:
    """An exchange at a host and port."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)

    def connect(self) -> TcpConnection:
        """Open a connection. Raises Unavailable, after CONNECT_SECONDS at the latest."""
        host, port = self._address
        try:
            connected = socket.create_connection(self._address, timeout=CONNECT_SECONDS)
        except OSError as error:
            raise Unavailable(f"no connection to {host}:{port}: {error.strerror or error}") from None
        connected.settimeout(SILENCE_SECONDS)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        return TcpConnection(connected)
