"""Bad input on the feeds: each line is counted under its reason, and costs neither its neighbours nor other feeds."""

import json
from collections.abc import Iterator

import pytest

from tests.support.feed_server import FeedServer, line, now_ms
from tests.support.market_checks import check_rows, wait_aggregated, wait_metric, wait_served, wait_stored
from tests.support.oracle import Oracle
from tests.support.system import System, installed, live_config
from tests.support.waiting import wait_until

SECOND = 1_000
REASONS = ("malformed", "invalid_field", "unknown_symbol", "bad_price", "bad_timestamp", "line_too_long")


@pytest.fixture(scope="module")
def system(feeds: list[FeedServer]) -> Iterator[System]:
    with installed(live_config(feeds)) as system:
        system.start_ready()
        yield system


def bad_lines(now: int) -> list[bytes]:
    good = line("BTCUSDT", 5.0, now).rstrip()
    fields = [
        {"price": 1.0, "timestamp": now},
        {"symbol": "BTCUSDT", "timestamp": now},
        {"symbol": "BTCUSDT", "price": 1.0},
        {"symbol": 7, "price": 1.0, "timestamp": now},
        {"symbol": "BTCUSDT", "price": "1.0", "timestamp": now},
        {"symbol": "BTCUSDT", "price": True, "timestamp": now},
        {"symbol": "BTCUSDT", "price": 1.0, "timestamp": now + 0.5},
        {"symbol": "BTCUSDT", "price": 1.0, "timestamp": str(now)},
        {"symbol": "btcusdt", "price": 1.0, "timestamp": now},
        {"symbol": "XRPUSDT", "price": 1.0, "timestamp": now},
        {"symbol": "BTCUSDT", "price": 0, "timestamp": now},
        {"symbol": "BTCUSDT", "price": -1.5, "timestamp": now},
        {"symbol": "BTCUSDT", "price": float("nan"), "timestamp": now},
        {"symbol": "BTCUSDT", "price": float("inf"), "timestamp": now},
        {"symbol": "BTCUSDT", "price": 10**400, "timestamp": now},
        {"symbol": "BTCUSDT", "price": 1.0, "timestamp": now - 70 * SECOND},
        {"symbol": "BTCUSDT", "price": 1.0, "timestamp": now + 70 * SECOND},
        {"symbol": "BTCUSDT", "price": 1.0, "timestamp": now // 1000},
        {"symbol": "BTCUSDT", "price": 1.0, "timestamp": 10**30},
        {"symbol": "BTCUSDT", "price": 1.0, "timestamp": -1},
    ]
    return [
        *(json.dumps(tick).encode() for tick in fields),
        good.replace(b"5.0", b"1e999"),
        b"",
        b" ",
        b"\r",
        b"GET / HTTP/1.1",
        b"null",
        b"[" + good + b"]",
        good[:-1],
        good + good,
        good[:20] + b"\n" + good[20:],
        b"\xff\xfe\x00",
        good[:-1] + b',"more":"\xff"}',
        good[:-1] + b',"more":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b"x" * 65_537,
        b'{"symbol":"BTCUSDT","price":1' + b"0" * 300_000 + b"}",
    ]


def check_counts(system: System, oracle: Oracle) -> None:
    wait_aggregated(system, oracle)
    for exchange in ("exchange1", "exchange2", "exchange3"):
        for reason in REASONS:
            rejected = oracle.rejected[exchange, reason]
            wait_metric(system, rejected, "marketflow_ticks_rejected_total", exchange=exchange, reason=reason)
        assert system.metric("marketflow_ticks_received_total", exchange=exchange) == oracle.received[exchange]


def test_every_bad_line_is_counted_and_costs_no_neighbour(
    system: System, oracle: Oracle, feeds: list[FeedServer]
) -> None:
    now = now_ms()
    for number, bad in enumerate(bad_lines(now)):
        for symbol in ("BTCUSDT", "ETHUSDT"):
            feeds[number % 3].send(line(symbol, 10.0 + number, now - number) + bad + b"\n")
            feeds[number % 3].send(bad + b"\n" + line(symbol, 20.0 + number, now + number))
    check_counts(system, oracle)
    assert all(sum(oracle.rejected[feed.name, reason] for feed in feeds) > 0 for reason in REASONS)
    check_rows(wait_stored(system, len(oracle.ticks)), oracle, SECOND)


def test_lines_may_be_cut_anywhere(system: System, oracle: Oracle, feeds: list[FeedServer]) -> None:
    now = now_ms()
    lines = b"".join(line("SOLUSDT", price, now) for price in (1.0, 2.5, 3.0)) + b"\r\nno\r\n"
    feeds[0].send_bytewise(lines + line("SOLUSDT", 4.0, now).replace(b"\n", b"\r\n"))
    check_counts(system, oracle)
    wait_served(system, oracle)
    assert system.body("/prices/latest/exchange1/SOLUSDT")["price"] == 4.0


def test_a_line_without_end_is_bounded_and_the_next_is_read(
    system: System, oracle: Oracle, feeds: list[FeedServer]
) -> None:
    before = sum(process.memory_info().rss for process in system.processes() if process.name().startswith("python"))
    for _ in range(64):
        feeds[1].send(b"x" * 1_048_576)
    feeds[1].send(b"\n" + line("TONUSDT", 6.5, now_ms()))
    check_counts(system, oracle)
    wait_served(system, oracle)
    assert system.body("/prices/latest/exchange2/TONUSDT")["price"] == 6.5
    after = sum(process.memory_info().rss for process in system.processes() if process.name().startswith("python"))
    assert after - before < 32 * 1_048_576


def test_a_cut_connection_is_opened_again_and_half_a_line_is_none(
    system: System, oracle: Oracle, feeds: list[FeedServer]
) -> None:
    feed = feeds[2]
    connections = feed.connections
    feed.send(line("DOGEUSDT", 0.25, now_ms()) + line("DOGEUSDT", 0.5, now_ms())[:-9])
    feed.cut()
    wait_until(lambda: feed.connections > connections, "it connects again", 2)
    feed.send(line("DOGEUSDT", 0.125, now_ms()))
    check_counts(system, oracle)
    wait_served(system, oracle)
    assert system.body("/prices/latest/exchange3/DOGEUSDT")["price"] == 0.125


def test_a_refusing_exchange_degrades_health_and_is_found_again(
    system: System, oracle: Oracle, feeds: list[FeedServer]
) -> None:
    feeds[0].refuse()
    wait_until(
        lambda: system.body("/health")["components"]["exchanges"]["exchange1"]["status"] == "connecting",
        "health names the exchange that is away",
    )
    assert system.body("/health")["status"] == "degraded"
    feeds[1].send_ticks([("BTCUSDT", 11.5, now_ms())])
    feeds[0].accept()
    feeds[0].send_ticks([("BTCUSDT", 12.5, now_ms())])
    check_counts(system, oracle)
    wait_until(
        lambda: system.body("/health")["components"]["exchanges"]["exchange1"]["status"] == "ok", "it is well again"
    )


def test_no_actor_had_to_be_restarted(system: System) -> None:
    assert system.metric("marketflow_actor_restarts_total") == 0
    assert "Traceback" not in system.log
