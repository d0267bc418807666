"""A node in a process of its own, whose inside a test can reach: see `tests.support.chaos_node`."""

import base64
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.fault_system import FaultSystem, exchanges
from tests.support.feed_server import FeedServer
from tests.support.oracle import Oracle
from tests.support.postgres_server import PostgresServer, running_server
from tests.support.system import SYSTEMS, environment, live_config
from tests.support.valkey_server import ValkeyServer, running_valkey

PAUSE = 0.4
"""Seconds between two kills, on average."""
REPOSITORY = Path(__file__).parents[2]


class ChaosNode(FaultSystem):
    """A node in a process of its own, which kills its own actors when it is told to."""

    def __init__(
        self, directory: Path, feeds: list[FeedServer], valkey: ValkeyServer, server: PostgresServer, **more: int
    ) -> None:
        config = live_config(feeds)
        super().__init__(directory, config, valkey, server)
        self.ledger = directory / "ledger"
        self.sent = Oracle()
        """What the exchanges sent."""
        self._errors = (directory / "log").open("wb")
        self._node = subprocess.Popen(
            [sys.executable, "-m", "tests.support.chaos_node"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(),
            cwd=REPOSITORY,
        )
        told = {"settings": config, "redis": valkey.url, "postgres": server.dsn, "ledger": str(self.ledger)}
        self.port = self.ask_node(json.dumps(told | {"seed": 1, "pause": PAUSE} | more))["port"]

    def tell_node(self, command: str) -> None:
        """Send a command that has no answer."""
        assert self._node.stdin is not None
        self._node.stdin.write(command.encode() + b"\n")
        self._node.stdin.flush()

    def ask_node(self, command: str) -> Any:
        """Send a command and return the answer."""
        self.tell_node(command)
        assert self._node.stdout is not None
        return json.loads(self._node.stdout.readline())

    def end(self) -> None:
        """Let it stop, or kill it."""
        try:
            with contextlib.suppress(OSError, ValueError):
                self.ask_node("quit")
            self._node.wait(15)
        finally:
            self._node.kill()
            self._node.wait()
            self._node.communicate()
            self._errors.close()
            SYSTEMS.remove(self)

    def expected(self, lost: list[list[Any]]) -> Oracle:
        """Return the oracle of all that was read, but for the batches that were lost."""
        gone = {(exchange, order) for exchange, order in lost}
        oracle = Oracle()
        with self.ledger.open() as ledger:
            for line in ledger:
                exchange, order, received_at, data = json.loads(line)
                if (exchange, order) not in gone:
                    oracle.sent(exchange, base64.b64decode(data), received_at)
        return oracle


@contextlib.contextmanager
def chaos_node(**more: int) -> Iterator[tuple[ChaosNode, list[FeedServer], ValkeyServer, PostgresServer]]:
    """Run a node on real servers and exchanges; `more` it is told besides."""
    with (
        tempfile.TemporaryDirectory(prefix="mf-") as directory,
        running_valkey("--appendonly", "yes") as valkey,
        running_server() as server,
        exchanges(sent := Oracle()) as feeds,
    ):
        node = ChaosNode(Path(directory), feeds, valkey, server, **more)
        node.sent = sent
        try:
            yield node, feeds, valkey, server
        except BaseException:
            print(node.log[-6_000:])
            raise
        finally:
            node.end()
