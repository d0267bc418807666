"""Test and live mode: a switch is in force when it is answered, and the two never mix."""

from collections.abc import Iterator

import pytest

from tests.support.feed_server import FeedServer, now_ms
from tests.support.market_checks import check_average, check_extreme, check_rows, wait_served
from tests.support.oracle import Oracle
from tests.support.system import Config, System, exchanges_of, installed, live_config
from tests.support.waiting import wait_until

SECOND = 1_000


@pytest.fixture(scope="module")
def test_oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="module")
def test_feeds(test_oracle: Oracle) -> Iterator[list[FeedServer]]:
    servers = [FeedServer(f"exchange{number}", test_oracle) for number in (1, 2, 3)]
    yield servers
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def system(feeds: list[FeedServer], test_feeds: list[FeedServer]) -> Iterator[System]:
    config = live_config(feeds) | {"mode": {"initial": "test"}, "testgen": {"exchanges": exchanges_of(test_feeds)}}
    with installed(config) as system:
        system.start_ready()
        yield system


def prices_of(system: System, count: int) -> set[tuple[str, float]]:
    """Return exchange and price of everything latest, once there are so many."""

    def look() -> set[tuple[str, float]]:
        body = system.body("/prices/latest")
        return {(price["exchange"], price["price"]) for price in body["prices"]}

    return wait_until(lambda: found if len(found := look()) == count else None, f"{count} prices are there")


def wait_latest(system: System, symbol: str, price: float) -> None:
    """Return once this is the latest price on all three exchanges."""

    def look() -> bool:
        found = [price["price"] for price in system.body("/prices/latest")["prices"] if price["symbol"] == symbol]
        return found == [price] * 3

    wait_until(look, f"{symbol} is {price} everywhere")


def test_a_switch_separates_everything(
    system: System,
    oracle: Oracle,
    test_oracle: Oracle,
    feeds: list[FeedServer],
    test_feeds: list[FeedServer],
) -> None:
    assert system.body("/mode") == {"mode": "test"}
    for number, feed in enumerate(test_feeds):
        feed.send_ticks([("BTCUSDT", 10.0 + number, now_ms())])
    assert prices_of(system, 3) == {("exchange1", 10.0), ("exchange2", 11.0), ("exchange3", 12.0)}
    assert all(feed.connections == 0 for feed in feeds)

    answer = system.post("/mode/live")
    assert (answer.status, answer.body) == (200, {"mode": "live", "previous": "test", "changed": True})
    assert system.body("/mode") == {"mode": "live"}
    assert system.body("/prices/latest") == {"mode": "live", "prices": []}
    assert system.get("/prices/latest/BTCUSDT").status == 404
    assert system.get("/prices/highest/BTCUSDT").status == 404

    for number, feed in enumerate(feeds):
        feed.send_ticks([("BTCUSDT", 20.0 + number, now_ms())])
    assert prices_of(system, 3) == {("exchange1", 20.0), ("exchange2", 21.0), ("exchange3", 22.0)}
    wait_served(system, oracle)
    body = system.body("/prices/lowest/BTCUSDT?period=5m")
    check_extreme(body, oracle, "lowest", "BTCUSDT", None)
    assert (body["mode"], body["ticks"]) == ("live", 3)
    again = system.post("/mode/live")
    assert (again.status, again.body) == (200, {"mode": "live", "previous": "live", "changed": False})

    back = system.post("/mode/test")
    assert back.body == {"mode": "test", "previous": "live", "changed": True}
    assert prices_of(system, 3) == {("exchange1", 10.0), ("exchange2", 11.0), ("exchange3", 12.0)}
    test_feeds[0].send_ticks([("BTCUSDT", 13.0, now_ms())])
    wait_until(lambda: system.body("/prices/latest/exchange1/BTCUSDT")["price"] == 13.0, "test prices come again")

    expected = len(oracle.ticks) + len(test_oracle.ticks)
    wait_until(lambda: system.stored_ticks() >= expected, "every tick is stored")
    check_rows(system.rows(), test_oracle, SECOND, "test")
    check_rows(system.rows(), oracle, SECOND, "live")
    with system.redis() as client:
        live, test = (client.hgetall(f"marketflow:{mode}:latest:BTCUSDT") for mode in ("live", "test"))
    assert b"20.0" in live[b"exchange1"]
    assert b"13.0" in test[b"exchange1"]


def test_switching_under_ticks_loses_and_mixes_none(
    system: System,
    oracle: Oracle,
    test_oracle: Oracle,
    feeds: list[FeedServer],
    test_feeds: list[FeedServer],
) -> None:
    for turn in range(6):
        mode, current, base = ("live", feeds, 1_000.0) if turn % 2 == 0 else ("test", test_feeds, 1.0)
        assert system.post(f"/mode/{mode}").body["mode"] == mode
        for feed in current:
            feed.send_ticks(("ETHUSDT", base + turn, now_ms()) for _ in range(500))
        wait_latest(system, "ETHUSDT", base + turn)
        wait_served(system, oracle if mode == "live" else test_oracle)
        average = system.body("/prices/average/ETHUSDT?period=1h")
        check_average(average, oracle if mode == "live" else test_oracle, "ETHUSDT", None)
        assert average["mode"] == mode
    wait_until(lambda: system.stored_ticks() >= len(oracle.ticks) + len(test_oracle.ticks), "every tick is stored")
    check_rows(system.rows(), test_oracle, SECOND, "test")
    check_rows(system.rows(), oracle, SECOND, "live")


def test_test_mode_generates_prices_by_itself(feeds: list[FeedServer]) -> None:
    config: Config = {"live": {"exchanges": exchanges_of(feeds)}, "testgen": {"rate": 200, "seed": 7}}
    with installed(config) as system:
        system.start_ready()
        body = wait_until(
            lambda: body if len((body := system.body("/prices/latest"))["prices"]) == 15 else None,
            "all five symbols have a price on all three exchanges",
        )
        assert body["mode"] == "test"
        assert system.terminate() == 0
        assert system.processes() == []
