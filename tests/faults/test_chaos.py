"""Random actors of a running node are killed in every way, under load: the tree is whole again, and the law holds."""

import base64
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fault_load import InterruptedLoad, Probe
from tests.support.fault_system import INTERVAL, FaultSystem, exchanges
from tests.support.feed_server import FeedServer, now_ms
from tests.support.market_checks import check_rows
from tests.support.oracle import SYMBOLS, Oracle
from tests.support.postgres_server import PostgresServer, running_server
from tests.support.system import SYSTEMS, environment, live_config
from tests.support.valkey_server import ValkeyServer, running_valkey
from tests.support.waiting import let_pass, wait_until

MB = 1024 * 1024
PAUSE = 0.4
"""Seconds between two kills, on average."""
REPOSITORY = Path(__file__).parents[2]


class ChaosNode(FaultSystem):
    """A node in a process of its own, which kills its own actors when it is told to."""

    def __init__(self, directory: Path, feeds: list[FeedServer], valkey: ValkeyServer, server: PostgresServer) -> None:
        config = live_config(feeds)
        super().__init__(directory, config, valkey, server)
        self.ledger = directory / "ledger"
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
        self.port = self.ask_node(json.dumps(told | {"seed": 1, "pause": PAUSE}))["port"]

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
def chaos_node() -> Iterator[tuple[ChaosNode, list[FeedServer]]]:
    """Run a node on real servers and exchanges."""
    with (
        tempfile.TemporaryDirectory(prefix="mf-") as directory,
        running_valkey() as valkey,
        running_server() as server,
        exchanges(Oracle()) as feeds,
    ):
        node = ChaosNode(Path(directory), feeds, valkey, server)
        try:
            yield node, feeds
        except BaseException:
            print(node.log[-6_000:])
            raise
        finally:
            node.end()


@pytest.mark.parametrize(
    "seconds", [pytest.param(10, marks=pytest.mark.quick, id="short"), pytest.param(60, id="minute")]
)
def test_chaos(seconds: int) -> None:
    with chaos_node() as (node, feeds):
        with InterruptedLoad(feeds):
            let_pass(3)
            before = node.ask_node("census")
            node.tell_node("chaos")
            with Probe(node) as probe:
                let_pass(seconds)
                calm = node.ask_node("calm")
            for feed in feeds:
                feed.wait_connected()
            let_pass(1)
        probe.report(f"chaos for {seconds} s")
        print(f"kills: {calm['kills']}")
        kills = sum(calm["kills"].values())
        assert kills > seconds
        assert calm["given_up"] == []
        assert {state for _, state, _, _ in calm["tree"]} == {"running"}
        assert sum(restarts for _, _, restarts, _ in calm["tree"]) >= kills / 2

        # Prices are served, during it and afterwards.
        assert probe.statuses[200] > 0.9 * sum(probe.statuses.values()), probe.statuses
        now = now_ms()
        for feed in feeds:
            feed.send_ticks((symbol, 777.0, now) for symbol in SYMBOLS)
        for symbol in SYMBOLS:
            wait_until(
                lambda symbol=symbol: node.body(f"/prices/latest/{symbol}")["price"] == 777.0,  # type: ignore[misc]  # mypy knows no type of a lambda's default
                "the latest price is served",
            )
        assert node.body("/health")["components"]["actors"]["restarts"] >= kills / 2

        # Nothing is on its way any more, and nothing waits.
        def in_flight() -> int:
            return int(node.body("/health")["components"]["ticks"]["in_flight"])

        wait_until(lambda: in_flight() == 0, "everything is accounted for")
        wait_until(lambda: not node.metric("marketflow_windows_waiting"), "every window is stored", 20)
        after = node.ask_node("census")
        lost = node.ask_node("ledger")["lost"]
        oracle = node.expected(lost)
        print(f"lost {len(lost)} batches; census before {before}, after {after}")

        # The law: what was read is aggregated, but for the batches that an actor failed on, and stored exactly.
        assert node.metric("marketflow_ticks_aggregated_total") == len(oracle.ticks)
        failed = node.metric("marketflow_ticks_failed_total")
        assert node.metric("marketflow_ticks_received_total") == failed + sum(oracle.received.values())
        assert (failed > 0) == (len(lost) > 0)
        check_rows(node.rows(), oracle, INTERVAL)
        for symbol in SYMBOLS:
            body = node.body(f"/prices/highest/{symbol}?period=5m")
            assert body["price"] == 777.0

        # No greenlet, no actor and no memory has leaked.
        assert after["actors"] == before["actors"]
        assert after["greenlets"] <= before["greenlets"] + 5
        assert after["rss"] - before["rss"] < 30 * MB + seconds * MB / 2
