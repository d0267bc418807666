"""Known ticks over real sockets from three exchanges: every answer and every stored row is the oracle's."""

import json
import random
from collections.abc import Iterator

import pytest

from tests.support.feed_server import FeedServer, now_ms
from tests.support.market_checks import check_average, check_extreme, check_rows, wait_served, wait_stored
from tests.support.oracle import Oracle
from tests.support.system import System, installed, live_config
from tests.support.waiting import wait_until

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")  # the other two have no tick
SCOPES = [(symbol, exchange) for symbol in SYMBOLS for exchange in (None, "exchange1", "exchange2", "exchange3")]
PERIODS = ["3s", "5s", "10s", "30s", "1m", "3m", "5m", "90s", "1h", "2d", "365d"]
TICKS = 900  # of each exchange, over the last 50 seconds
SECOND = 1_000


def spread(seed: int, now: int) -> list[tuple[str, float, int]]:
    """Return ticks in an order of time that is only roughly kept, with prices and times that repeat."""
    chance = random.Random(seed)
    ticks = [
        (chance.choice(SYMBOLS), round(100 + chance.gauss(0, 2), 1), now - chance.randrange(50 * SECOND))
        for _ in range(TICKS)
    ]
    ticks.sort(key=lambda tick: tick[2] + chance.randrange(3 * SECOND))
    return [*ticks, *ticks[-20:]]


@pytest.fixture(scope="module")
def system(feeds: list[FeedServer], oracle: Oracle) -> Iterator[System]:
    with installed(live_config(feeds)) as system:
        system.start_ready()
        now = now_ms()
        for seed, feed in enumerate(feeds):
            ticks = spread(seed, now)
            for start in range(0, len(ticks), 100):
                feed.send_ticks(ticks[start : start + 100])
        # One millisecond, three prices on each exchange: the last received is the latest.
        for symbol in SYMBOLS:
            for number, feed in enumerate(feeds):
                feed.send_ticks((symbol, 90.0 + number + step, now + number) for step in (0.25, 0.75, 0.5))
        wait_served(system, oracle)
        yield system


def path_of(kind: str, symbol: str, exchange: str | None) -> str:
    return f"/prices/{kind}/{symbol}" if exchange is None else f"/prices/{kind}/{exchange}/{symbol}"


@pytest.mark.parametrize(("symbol", "exchange"), SCOPES)
def test_latest_is_the_last_tick_of_the_greatest_timestamp(
    system: System, oracle: Oracle, symbol: str, exchange: str | None
) -> None:
    body = system.body(path_of("latest", symbol, exchange))
    (tick,) = oracle.latest(symbol, exchange)
    assert body.pop("stale") in {False, True}  # a minute may have passed on a slow machine
    assert body == {
        "symbol": symbol,
        "exchange": tick.exchange,
        "price": tick.price,
        "timestamp": tick.time,
        "mode": "live",
        "source": "redis",
    }


def test_latest_of_all_is_every_symbol_and_exchange(system: System, oracle: Oracle) -> None:
    body = system.body("/prices/latest")
    found = {(price["symbol"], price["exchange"]): (price["price"], price["timestamp"]) for price in body["prices"]}
    pairs = [(symbol, exchange) for symbol, exchange in SCOPES if exchange is not None]
    latest = {pair: oracle.latest(*pair).pop() for pair in pairs}
    assert found == {pair: (tick.price, tick.time) for pair, tick in latest.items()}
    assert len(body["prices"]) == len(pairs)
    assert {price["source"] for price in body["prices"]} == {"redis"}
    assert body["mode"] == "live"


@pytest.mark.parametrize("kind", ["highest", "lowest", "average"])
@pytest.mark.parametrize("exchange", [None, "exchange2"])
@pytest.mark.parametrize("period", [*PERIODS, None])
def test_a_period_is_exact(
    system: System, oracle: Oracle, feeds: list[FeedServer], kind: str, exchange: str | None, period: str | None
) -> None:
    for symbol in SYMBOLS:
        feeds[1].send_ticks([(symbol, 95.5, now_ms() - 1_500)])  # so that a short period has a tick
    wait_served(system, oracle)
    for symbol in SYMBOLS:
        before = now_ms()
        body = system.body(path_of(kind, symbol, exchange) + (f"?period={period}" if period else ""))
        after = now_ms()
        if kind == "average":
            check_average(body, oracle, symbol, exchange)
        else:
            check_extreme(body, oracle, kind, symbol, exchange)
        assert (body["symbol"], body["mode"], body["period"]) == (symbol, "live", period or "1m")
        assert body["source"] in {"redis", "postgres"}
        assert before - before % 100 <= body["to"] <= after
        length = milliseconds(period or "1m")
        grain = 100 if length <= 5 * 60 * SECOND else SECOND
        assert body["to"] % 100 == 0
        assert body["from"] % 100 == 0
        assert -grain - (after - before) < body["from"] - (body["to"] - length) <= 0


def milliseconds(period: str) -> int:
    return int(period[:-1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[period[-1]] * SECOND


def test_a_period_counts_what_came_just_now(system: System, oracle: Oracle, feeds: list[FeedServer]) -> None:
    now = now_ms()
    feeds[0].send_ticks(("BTCUSDT", 777.25, now - age) for age in (300, 400, 500))
    wait_served(system, oracle)
    body = system.body("/prices/highest/BTCUSDT?period=30s")
    check_extreme(body, oracle, "highest", "BTCUSDT", None)
    assert (body["price"], body["exchange"], body["timestamp"]) == (777.25, "exchange1", now - 500)
    assert body["source"] == "redis"


def test_every_row_is_exact(system: System, oracle: Oracle) -> None:
    rows = wait_stored(system, len(oracle.ticks))
    check_rows(rows, oracle, SECOND)
    assert sum(row.row.ticks for row in rows) == len(oracle.ticks)
    assert all(row.window_start < row.stored_at <= now_ms() for row in rows)


def test_a_late_tick_amends_its_row(system: System, oracle: Oracle, feeds: list[FeedServer]) -> None:
    wait_stored(system, len(oracle.ticks))
    late = now_ms() - 20 * SECOND
    for feed, price in zip(feeds, (1.0, 2.0, 9_999.0), strict=True):
        feed.send_ticks([("ETHUSDT", price, late), ("ETHUSDT", price * 2, late)])
    check_rows(wait_stored(system, len(oracle.ticks)), oracle, SECOND)
    wait_served(system, oracle)
    body = system.body("/prices/lowest/ETHUSDT")
    check_extreme(body, oracle, "lowest", "ETHUSDT", None)
    assert body["price"] == 1.0


def test_latest_keys_are_as_documented(system: System, oracle: Oracle) -> None:
    with system.redis() as client:
        stored = client.hgetall("marketflow:live:latest:SOLUSDT")
        (left,) = client.hpttl("marketflow:live:latest:SOLUSDT", "exchange1")
        assert all(key.startswith(b"marketflow:") for key in client.scan_iter())
    for tick in (oracle.latest("SOLUSDT", exchange).pop() for exchange in ("exchange1", "exchange2", "exchange3")):
        known = json.loads(stored[tick.exchange.encode()])
        assert (known["price"], known["timestamp"]) == (tick.price, tick.time)
    assert 0 < left <= 60 * SECOND


def test_counts_agree_with_what_was_sent(system: System, oracle: Oracle) -> None:
    wait_stored(system, len(oracle.ticks))
    for exchange in ("exchange1", "exchange2", "exchange3"):
        assert system.metric("marketflow_ticks_received_total", exchange=exchange) == oracle.received[exchange]
        assert system.metric("marketflow_ticks_aggregated_total", exchange=exchange) == oracle.accepted(exchange)
        assert system.metric("marketflow_ticks_rejected_total", exchange=exchange) == 0
        assert system.metric("marketflow_windows_stored_total", exchange=exchange) >= 50


@pytest.mark.parametrize("kind", ["latest", "highest", "lowest", "average"])
def test_no_data_yet_is_told_apart_from_unknown(system: System, kind: str) -> None:
    problems = [
        system.get(f"/prices/{kind}/{name}") for name in ("TONUSDT", "exchange1/TONUSDT", "NOPE", "nowhere/BTCUSDT")
    ]
    assert [problem.status for problem in problems] == [404] * 4
    assert all(problem.headers["content-type"] == "application/problem+json" for problem in problems)
    no_data, no_data_here, no_symbol, no_exchange = (problem.body["type"] for problem in problems)
    assert no_data == no_data_here
    assert len({no_data, no_symbol, no_exchange}) == 3


def test_health_is_ok_and_shows_its_parts(system: System, feeds: list[FeedServer]) -> None:
    for feed in feeds:
        feed.send_ticks([("BTCUSDT", 100.0, now_ms())])
    wait_until(lambda: system.body("/health")["status"] == "ok", "health is ok")
    body = system.body("/health")
    assert body["mode"] == "live"
    assert body["version"]
    components = body["components"]
    assert {name: components[name]["status"] for name in ("redis", "postgres", "actors")} == {
        "redis": "ok",
        "postgres": "ok",
        "actors": "ok",
    }
    assert {name: exchange["status"] for name, exchange in components["exchanges"].items()} == {
        "exchange1": "ok",
        "exchange2": "ok",
        "exchange3": "ok",
    }
    assert all(exchange["last_tick_age_ms"] < 60 * SECOND for exchange in components["exchanges"].values())
    assert system.get("/health/live").status == system.get("/health/ready").status == 200


def test_the_tree_of_actors_is_whole(system: System) -> None:
    actors = system.body("/actors")["actors"]
    names = " ".join(actor["name"] for actor in actors)
    for part in ("cache", "aggregator", "router", "worker", "mode", "exchange1", "exchange2", "exchange3"):
        assert part in names
    assert system.metric("marketflow_actor_restarts_total") == 0
