"""MarketFlow itself stopped under a flood, or killed: alone, with its servers, or one node of two."""

import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable

import psutil
import pytest

from tests.support.fault_load import InterruptedLoad, Load
from tests.support.fault_system import INTERVAL, FaultSystem, exchanges, fault_system
from tests.support.feed_server import FeedServer, line, now_ms
from tests.support.market_checks import same_row
from tests.support.oracle import SYMBOLS, row_of
from tests.support.segments import Segments, check_loss
from tests.support.waiting import let_pass, wait_until

MINUTE = 60_000
PROMISE_MS = 100
SLACK_MS = 200
"""Until a tick that was sent is received, on a machine that has more to do."""


def flood(feeds: list[FeedServer], done: threading.Event) -> list[threading.Thread]:
    """Send as fast as it is taken."""

    def send(feed: FeedServer) -> None:
        number = 0
        while not done.is_set():
            now = now_ms()
            number += 1
            price = 100.0 + number % 64 / 8
            try:
                feed.send(b"".join(line(symbol, price, now - 3 * n) for n in range(40) for symbol in SYMBOLS), 0.5)
            except (OSError, TimeoutError):
                return

    threads = [threading.Thread(target=send, args=(feed,)) for feed in feeds]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.quick
def test_sigterm_in_mid_window_under_flood() -> None:
    sent = Segments()
    with exchanges(sent) as feeds, fault_system(feeds, interval="1m") as system:
        system.start_ready()
        done = threading.Event()
        threads = flood(feeds, done)
        let_pass(1.5)
        began = time.monotonic()
        status = system.terminate(10)
        print(f"SIGTERM under flood: status {status} after {time.monotonic() - began:.1f} s")
        done.set()
        for thread in threads:
            thread.join(60)
        for feed in feeds:
            feed.cut()
        assert status == 0
        assert system.processes() == []

        system.start_ready()
        first = check_prefixes(system, sent)
        assert first > 20_000
        counts = _last_counts(system)
        assert counts["received"] == counts["aggregated"] == first
        for feed in feeds:
            feed.send_ticks([("BTCUSDT", 500.0, now_ms())])
        wait_until(lambda: system.metric("marketflow_ticks_aggregated_total") == len(feeds), "more is received")
        assert system.terminate(10) == 0
        system.start_ready()
        assert check_prefixes(system, sent) == first + len(feeds)
        assert "Traceback" not in system.log


def _last_counts(system: FaultSystem) -> dict[str, int]:
    """Return what the node logged of its counts when it stopped."""
    stopped = [text for text in system.log.splitlines() if "node stopped" in text][-1]
    words = (word.split("=", 1) for word in stopped.split() if "=" in word)
    return {name: int(value) for name, value in words if value.isdigit()}


def check_prefixes(system: FaultSystem, sent: Segments) -> int:
    """Check that what is stored is, of each connection, all up to some tick; return how many ticks that is."""
    rows = system.rows()
    total = 0
    for exchange in sent.exchanges:
        first, *rest = sent.connections(exchange)
        later = [item.tick for ticks in rest for item in ticks]
        stored = sum(row.row.ticks for row in rows if row.exchange == exchange)
        total += stored
        windows = defaultdict(list)
        for tick in [item.tick for item in first][: stored - len(later)] + later:
            windows[tick.symbol, tick.time - tick.time % MINUTE].append(tick)
        found = {(row.symbol, row.window_start): row.row for row in rows if row.exchange == exchange}
        assert found.keys() == windows.keys()
        wrong = [key for key, row in found.items() if not same_row(row, row_of(windows[key]))]
        assert not wrong
    return total


def kill_under_load(name: str, kill: Callable[[FaultSystem], None], *, restart: bool) -> None:
    """Kill under load and let MarketFlow start again; what is lost must have been received just before."""
    sent = Segments()
    with exchanges(sent) as feeds, fault_system(feeds) as system:
        system.start_ready()
        with InterruptedLoad(feeds):
            let_pass(3)
            killed_at = now_ms()
            kill(system)
            for feed in feeds:
                feed.cut()
            began = time.monotonic()
            if restart:
                system.start()
            wait_until(system.is_ready, "it serves again", 30)
            served = time.monotonic() - began
            for feed in feeds:
                feed.wait_connected()
            let_pass(2)
        _wait_stored(system, sent)
        loss = check_loss(system.rows(), sent, INTERVAL, killed_at)
        print(f"{name}: lost {loss.ticks} ticks, sent in the last {loss.longest_ago} ms; served after {served:.1f} s")
        assert loss.longest_ago <= PROMISE_MS + SLACK_MS
        assert system.terminate() == 0
        assert system.processes() == []


def _wait_stored(system: FaultSystem, sent: Segments) -> None:
    """Return once every window of what was sent last is stored."""
    latest = max(item.tick.time for name in sent.exchanges for item in sent.connections(name)[-1])

    def stored() -> bool:
        rows = system.rows()
        return all(
            max(row.window_start for row in rows if row.exchange == name) > latest - 2 * INTERVAL
            for name in sent.exchanges
        ) and not system.metric("marketflow_windows_waiting")

    wait_until(stored, "all is stored", 30)


@pytest.mark.quick
def test_killed_node() -> None:
    kill_under_load("node killed", lambda system: system.nodes()[0].kill(), restart=False)


def test_killed_node_and_both_servers() -> None:
    kill_under_load("all killed", FaultSystem.kill, restart=True)


def test_killed_parent() -> None:
    def kill(system: FaultSystem) -> None:
        system.signal(signal.SIGKILL)
        wait_until(lambda: not system.processes(), "no orphan is left", 15)

    kill_under_load("parent killed", kill, restart=True)


@pytest.mark.quick
def test_one_of_two_nodes_killed() -> None:
    sent = Segments()
    with exchanges(sent) as feeds, fault_system(feeds, server={"workers": 2}) as system:
        system.start_ready()
        for feed in feeds:
            feed.wait_connected()
        with InterruptedLoad(feeds):
            let_pass(3)
            reader = next(process for process in system.nodes() if _reads(process, feeds))
            victims = [feed for feed in feeds if _reads(reader, [feed])]
            before = {feed.name: feed.connections for feed in victims}
            killed_at = now_ms()
            reader.kill()
            for feed in victims:
                feed.cut()
            began = time.monotonic()
            wait_until(
                lambda: all(feed.connections > before[feed.name] for feed in victims), "the feeds are taken over", 15
            )
            taken_over = time.monotonic() - began
            let_pass(3)
        print(f"one of two nodes killed: {len(victims)} feeds taken over after {taken_over:.1f} s")
        assert taken_over < 5
        _wait_stored(system, sent)
        loss = check_loss(system.rows(), sent, INTERVAL, killed_at)
        print(f"one of two nodes killed: lost {loss.ticks} ticks, sent in the last {loss.longest_ago} ms")
        assert loss.longest_ago <= PROMISE_MS + SLACK_MS
        assert system.terminate() == 0


def _reads(process: psutil.Process, feeds: list[FeedServer]) -> bool:
    ports = {feed.port for feed in feeds}
    return any(connection.raddr and connection.raddr.port in ports for connection in process.net_connections("tcp"))


def test_one_of_two_nodes_frozen_for_longer_than_its_lease() -> None:
    """Its feeds are taken over; when it goes on, it finds that out and leaves them alone. What it had received but not
    read is lost, and nothing else: no row is wrong."""
    sent = Segments()
    with exchanges(sent) as feeds, fault_system(feeds, server={"workers": 2}) as system:
        system.start_ready()
        for feed in feeds:
            feed.wait_connected()
        with InterruptedLoad(feeds):
            let_pass(3)
            reader = next(process for process in system.nodes() if _reads(process, feeds))
            victims = [feed for feed in feeds if _reads(reader, [feed])]
            before = {feed.name: feed.connections for feed in victims}
            frozen_at = now_ms()
            reader.suspend()
            wait_until(
                lambda: all(feed.connections > before[feed.name] for feed in victims), "the feeds are taken over", 15
            )
            print(f"node frozen: {len(victims)} feeds taken over after {now_ms() - frozen_at} ms")
            assert now_ms() - frozen_at < 5_000
            let_pass(2)
            reader.resume()
            let_pass(3)
        _wait_stored(system, sent)
        loss = check_loss(system.rows(), sent, INTERVAL, frozen_at)
        print(f"node frozen: lost {loss.ticks} ticks, sent in the last {loss.longest_ago} ms")
        assert loss.longest_ago <= PROMISE_MS + SLACK_MS
        assert system.terminate() == 0


def test_one_of_two_nodes_stopped() -> None:
    """It hands over only when all that it received is journalled: nothing is lost."""
    sent = Segments()
    with exchanges(sent) as feeds, fault_system(feeds, server={"workers": 2}) as system:
        system.start_ready()
        for feed in feeds:
            feed.wait_connected()
        readers = [process for process in system.nodes() if _reads(process, feeds)]
        with Load(feeds):
            let_pass(2)
        settled = sum(len(ticks) for feed in feeds for ticks in sent.connections(feed.name))
        wait_until(lambda: system.metric("marketflow_ticks_aggregated_total") == settled, "all is received")
        before = [feed.connections for feed in feeds]
        stopped_at = now_ms()
        for process in readers[:1]:
            process.terminate()
        wait_until(lambda: not readers[0].is_running() or any(map(_moved, feeds, before)), "its feeds move", 15)
        wait_until(lambda: all(_reads_any(system, feed) for feed in feeds), "all feeds are read", 15)
        with Load(feeds):
            let_pass(2)
        _wait_stored(system, sent)
        assert check_loss(system.rows(), sent, INTERVAL, stopped_at).ticks == 0
        assert system.terminate() == 0


def _moved(feed: FeedServer, connections: int) -> bool:
    return feed.connections > connections


def _reads_any(system: FaultSystem, feed: FeedServer) -> bool:
    return any(_reads(process, [feed]) for process in system.nodes())
