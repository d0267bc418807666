"""An exchange that misbehaves in every way: the others never notice, and it is read again as soon as it is well."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.fault_load import Load, check_counts, check_law, wait_stored_exactly
from tests.support.fault_system import INTERVAL, FaultSystem, exchanges, fault_system
from tests.support.feed_server import FeedServer, line, now_ms
from tests.support.oracle import SYMBOLS, Oracle
from tests.support.waiting import let_pass, wait_until

SLACK = 1.0
"""Seconds that a busy machine may take besides."""


@contextmanager
def three_exchanges() -> Iterator[tuple[FaultSystem, Oracle, FeedServer, list[FeedServer]]]:
    """Run MarketFlow on one exchange to misbehave and two that must not notice."""
    oracle = Oracle()
    with exchanges(oracle) as feeds, fault_system(feeds) as system:
        system.start_ready()
        for feed in feeds:
            feed.wait_connected()
        yield system, oracle, feeds[0], feeds[1:]


def status(system: FaultSystem, feed: FeedServer) -> str:
    return str(system.body("/health")["components"]["exchanges"][feed.name]["status"])


def some_ticks(feed: FeedServer) -> None:
    now = now_ms()
    feed.send_ticks((symbol, 50.0 + step / 8, now - step) for step in range(20) for symbol in SYMBOLS)


def refused_for(seconds: float, feed: FeedServer) -> float:
    """Refuse connections for a while; return how long it took to be connected afterwards, in seconds."""
    feed.refuse()
    let_pass(seconds)
    return reconnected(feed)


def reconnected(feed: FeedServer) -> float:
    """Accept connections; return how long it took to be connected, in seconds."""
    feed.accept()
    began = time.monotonic()
    feed.wait_connected()
    return time.monotonic() - began


@pytest.mark.quick
def test_the_others_never_notice() -> None:
    with three_exchanges() as (system, oracle, bad, good):
        connections = [feed.connections for feed in good]
        with Load(good, 1_400) as load:
            for misbehave in (_garbage, _cut_lines, _wrong_clock, _endless_line, _flood):
                misbehave(bad)
                bad.cut()
                bad.wait_connected()
                some_ticks(bad)
            after = refused_for(3, bad)
            print(f"connected {1000 * after:.0f} ms after a short outage")
            assert after < 1 + SLACK
            some_ticks(bad)
            bad.abandon()
            let_pass(1)
        assert [feed.connections for feed in good] == connections
        assert max(load.slowest.values()) < 2, "ingest stalled"
        check_law(system, oracle, INTERVAL)
        assert system.metric("marketflow_actor_restarts_total") == 0


def _garbage(feed: FeedServer) -> None:
    source = random.Random(1)
    for _ in range(20):
        feed.send(source.randbytes(5_000).replace(b"\n", b"x") + b"\n" + line("BTCUSDT", 1.5, now_ms()))
    feed.send(line("NOSUCH", 1.0, now_ms()) + line("BTCUSDT", -1.0, now_ms()) + b"{}\n[]\n\n" + b"\xff\xfe\n")


def _cut_lines(feed: FeedServer) -> None:
    feed.send_bytewise(b"".join(line(symbol, 2.5, now_ms()) for symbol in SYMBOLS))
    feed.send(line("BTCUSDT", 3.5, now_ms())[:30])


def _wrong_clock(feed: FeedServer) -> None:
    now = now_ms()
    feed.send_ticks(("BTCUSDT", 4.5, now + ahead) for ahead in (-3_600_000, -30_000, 30_000, 3_600_000))


def _endless_line(feed: FeedServer) -> None:
    feed.send(b"x" * 3_000_000 + b"\n")


def _flood(feed: FeedServer) -> None:
    done = threading.Event()
    timer = threading.Timer(2, done.set)
    timer.start()
    while not done.is_set():
        now = now_ms()
        feed.send(b"".join(line(symbol, 5.5, now) for symbol in SYMBOLS) * 100)


def test_refused_for_long() -> None:
    with three_exchanges() as (system, oracle, bad, good):
        with Load(good, 1_400):
            some_ticks(bad)
            bad.refuse()
            wait_until(lambda: status(system, bad) == "connecting", "health says that it is away")
            assert system.body("/health")["status"] == "degraded"
            assert system.get("/prices/latest/BTCUSDT").status == 200
            let_pass(50)
            after = reconnected(bad)
            print(f"connected {after:.1f} s after a long outage")
            assert after < 10 + SLACK
            some_ticks(bad)
            wait_until(lambda: status(system, bad) == "ok", "health says that it is well")
        check_law(system, oracle, INTERVAL)


def test_half_open_and_stalled() -> None:
    """Nothing comes any more, and no end either: after 10 s it is stale, after 30 s the connection is tried anew."""
    with three_exchanges() as (system, oracle, bad, good):
        with Load(good, 1_400):
            some_ticks(bad)
            before = bad.connections
            bad.abandon()
            wait_until(lambda: status(system, bad) == "stale", "health says that it is stale", 15)
            wait_until(lambda: bad.connections > before, "it is connected anew", 40)
            some_ticks(bad)
            wait_until(lambda: status(system, bad) == "ok", "health says that it is well")
        check_law(system, oracle, INTERVAL)


@pytest.mark.quick
def test_duplicate_late_and_reordered_ticks() -> None:
    """The same ticks in any order make the same rows, also when they come long after their window was stored."""
    oracle = Oracle()
    source = random.Random(7)
    with exchanges(oracle, 2) as feeds, fault_system(feeds) as system:
        system.start_ready()
        for _ in range(4):
            now = now_ms()
            ticks = [
                (source.choice(SYMBOLS), source.randint(1, 800) / 8, now - source.randrange(20_000))
                for _ in range(2_000)
            ]
            for feed in feeds:
                source.shuffle(ticks)
                feed.send_ticks(ticks)
                feed.send_ticks(source.sample(ticks, 200))
            let_pass(1.2)
        check_counts(system, oracle)
        wait_stored_exactly(system, oracle, INTERVAL)
        rows = system.rows()
        first, second = ({(r.symbol, r.window_start) for r in rows if r.exchange == feed.name} for feed in feeds)
        assert first == second
        assert any(row.stored_at > row.window_start + 3_000 for row in rows), "none was late"
