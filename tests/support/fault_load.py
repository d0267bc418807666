"""Load for tests of faults: exchanges that send at a steady rate, a client that asks all the time, and the law."""

import contextlib
import http.client
import json
import math
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import psycopg2

from tests.support.feed_server import FeedServer, now_ms
from tests.support.market_checks import check_rows
from tests.support.oracle import SYMBOLS, Oracle
from tests.support.system import HOST, System
from tests.support.waiting import let_pass, wait_until

RATE = 2_000
"""Ticks per second, over all exchanges."""

_STEP = 0.02  # seconds between two sends of a feed
_LATE_MS = 300
"""How old the oldest ticks of a load are when they are sent, besides the few that are very late."""
_VERY_LATE_MS = 3_000

PATHS = (
    "/prices/latest/BTCUSDT",
    "/prices/latest/exchange1/ETHUSDT",
    "/prices/highest/BTCUSDT?period=10s",
    "/prices/average/SOLUSDT?period=30s",
    "/prices/lowest/exchange1/TONUSDT",
)
"""What a prober asks for: each can be answered without PostgreSQL."""


class Load:
    """Sends ticks on all feeds until it is left: most of them new, some reordered, duplicate or late."""

    def __init__(self, feeds: Sequence[FeedServer], rate: float = RATE) -> None:
        self._feeds = feeds
        self._rate = rate / len(feeds)
        self._done = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(feed,), name=f"load {feed.name}") for feed in feeds]
        self.slowest = dict.fromkeys((feed.name for feed in feeds), 0.0)
        """Seconds that the longest send of a feed took: an exchange that is held back."""

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(90)
        assert not self._failures, self._failures

    def _run(self, feed: FeedServer) -> None:
        source = random.Random(feed.name)
        prices = {symbol: 100.0 * (number + 1) for number, symbol in enumerate(SYMBOLS)}
        began, sent = time.monotonic(), 0
        try:
            while not self._done.wait(_STEP):
                due = min(int((time.monotonic() - began) * self._rate) - sent, 2_000)
                if due <= 0:
                    continue
                sent += due
                data = b"".join(_lines(source, prices, due))
                start = time.monotonic()
                self._send(feed, data)
                self.slowest[feed.name] = max(self.slowest[feed.name], time.monotonic() - start)
        except BaseException as error:  # noqa: BLE001 - it is raised by the thread that waits
            self._failures.append(error)

    def _send(self, feed: FeedServer, data: bytes) -> None:
        feed.send(data)


class InterruptedLoad(Load):
    """Load for a MarketFlow that goes away and comes back: what a lost connection took along is not sent again."""

    def _send(self, feed: FeedServer, data: bytes) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            feed.send(data, 0.5)


def _lines(source: random.Random, prices: dict[str, float], count: int) -> Iterator[bytes]:
    for _ in range(count):
        symbol = source.choice(SYMBOLS)
        price = prices[symbol] = max(1.0, prices[symbol] + source.randint(-8, 8) / 64)
        age = source.randrange(_VERY_LATE_MS) if source.random() < 0.005 else source.randrange(_LATE_MS)
        line = f'{{"symbol":"{symbol}","price":{price!r},"timestamp":{now_ms() - age}}}\n'.encode()
        yield line
        if source.random() < 0.01:
            yield line


class Probe:
    """Asks all the time, one request after the other, and remembers how that went."""

    def __init__(self, system: System, paths: Sequence[str] = PATHS) -> None:
        self._system = system
        self._paths = paths
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe")
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.sources: Counter[str] = Counter()

    def __enter__(self) -> "Probe":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(60)

    def _run(self) -> None:
        connection = http.client.HTTPConnection(HOST, self._system.port, timeout=30)
        with contextlib.closing(connection):
            while not self._done.wait(0.01):
                for path in self._paths:
                    self._ask(connection, path)

    def _ask(self, connection: http.client.HTTPConnection, path: str) -> None:
        began = time.monotonic()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = json.loads(answer.read())
        except (OSError, http.client.HTTPException):
            connection.close()
            self.statuses[0] += 1
            return
        self.seconds.append(time.monotonic() - began)
        self.statuses[answer.status] += 1
        if answer.status == 200:
            self.sources[body["source"]] += 1

    def percentile(self, percent: int) -> float:
        """Return so many percent of the answers took at most, in seconds."""
        return statistics.quantiles(self.seconds, n=100)[percent - 1] if len(self.seconds) > 1 else math.inf

    def report(self, name: str) -> None:
        """Print the figures, for who runs the tests with `-s` or `-rP`."""
        figures = f"p50 {1000 * self.percentile(50):.1f} ms, p99 {1000 * self.percentile(99):.1f} ms"
        print(f"{name}: {figures}, max {1000 * max(self.seconds):.0f} ms, {dict(self.statuses)}, {dict(self.sources)}")

    def check(self, name: str, limit: float = 0.5) -> None:
        """Every request was answered with 200, and 99 % of them in time.

        The promise is 100 ms on a machine that has nothing else to do; `limit` is for those that have.
        """
        self.report(name)
        assert set(self.statuses) == {200}, self.statuses
        assert self.percentile(99) < limit


def check_counts(system: System, oracle: Oracle) -> None:
    """Compare the counts of each exchange with what was sent: received = rejected + aggregated, and nothing failed."""

    def settled() -> bool:
        return all(
            system.metric("marketflow_ticks_received_total", exchange=name) >= sent
            and system.metric("marketflow_ticks_rejected_total", exchange=name)
            + system.metric("marketflow_ticks_aggregated_total", exchange=name)
            >= sent
            for name, sent in oracle.received.items()
        )

    wait_until(settled, "everything that was sent is accounted for", 30)
    for name, sent in oracle.received.items():
        received = system.metric("marketflow_ticks_received_total", exchange=name)
        rejected = system.metric("marketflow_ticks_rejected_total", exchange=name)
        aggregated = system.metric("marketflow_ticks_aggregated_total", exchange=name)
        assert (received, rejected) == (sent, sent - oracle.accepted(name))
        assert received == rejected + aggregated
        assert system.metric("marketflow_ticks_failed_total", exchange=name) == 0
    assert system.body("/health")["components"]["ticks"]["status"] == "ok"


def check_law(system: System, oracle: Oracle, interval: int, timeout: float = 30.0) -> None:
    """The law, once the backends are there: the counts, the sum of the rows, and every row as the oracle has it."""
    check_counts(system, oracle)
    wait_stored_exactly(system, oracle, interval, timeout)


def wait_stored_exactly(system: System, oracle: Oracle, interval: int, timeout: float = 30.0) -> None:
    """Return once every tick that was sent is stored; then no row may be wrong or too many, and none may be later."""
    ticks = len(oracle.ticks)

    def stored() -> bool:
        try:
            return system.stored_ticks() >= ticks
        except psycopg2.Error:
            return False  # it is not up yet, or MarketFlow has not made its table

    wait_until(stored, f"{ticks} ticks are stored", timeout)
    check_rows(system.rows(), oracle, interval)


def load_for(seconds: float, system: System, feeds: Sequence[FeedServer]) -> None:
    """Let load run for a while, so that a fault meets a system at work."""
    with Load(feeds):
        let_pass(seconds)
    assert system.metric("marketflow_ticks_received_total") > 0
