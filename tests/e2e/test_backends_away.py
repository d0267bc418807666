"""Redis or PostgreSQL away: prices are served, nothing is lost, and what waited is stored when they are back."""

import contextlib
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.support.feed_server import FeedServer, now_ms
from tests.support.market_checks import check_extreme, check_rows, wait_aggregated, wait_served, wait_stored
from tests.support.oracle import Oracle
from tests.support.system import System, installed, live_config
from tests.support.waiting import let_pass, wait_until

SECOND = 1_000


@pytest.fixture(scope="module")
def system(feeds: list[FeedServer]) -> Iterator[System]:
    with installed(live_config(feeds)) as system:
        system.start_ready()
        yield system


@contextlib.contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    """Let a server stand still: it takes connections and never answers."""
    family = [process, *process.children(recursive=True)]
    for member in family:
        member.suspend()
    try:
        yield
    finally:
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.resume()


def send(feeds: list[FeedServer], price: float) -> None:
    for number, feed in enumerate(feeds):
        feed.send_ticks([("BTCUSDT", price + number, now_ms()), ("ETHUSDT", price, now_ms() - 2_000)])


def wait_price(system: System, price: float, source: str) -> None:
    """Return once the latest price on the first exchange is this one, from this source."""

    def look() -> bool:
        answer = system.get("/prices/latest/exchange1/BTCUSDT")
        return answer.status == 200 and (answer.body["price"], answer.body["source"]) == (price, source)

    wait_until(look, f"the price is {price} from {source}")


def status_of(system: System, component: str) -> str:
    return str(system.body("/health")["components"][component]["status"])


def test_redis_frozen_memory_answers(system: System, oracle: Oracle, feeds: list[FeedServer]) -> None:
    send(feeds, 100.0)
    wait_price(system, 100.0, "redis")
    with frozen(system.process_of("valkey-server")):
        send(feeds, 200.0)
        wait_price(system, 200.0, "memory")
        wait_served(system, oracle)
        began = time.monotonic()
        body = system.body("/prices/highest/ETHUSDT?period=1m")
        assert time.monotonic() - began < 2
        check_extreme(body, oracle, "highest", "ETHUSDT", None)
        assert body["source"] == "memory"
        wait_until(lambda: system.body("/health")["status"] == "degraded", "health is degraded")
        assert status_of(system, "redis") != "ok"
        check_rows(wait_stored(system, len(oracle.ticks)), oracle, SECOND)
    send(feeds, 300.0)
    wait_price(system, 300.0, "redis")
    wait_until(lambda: status_of(system, "redis") == "ok", "redis is well again")
    check_rows(wait_stored(system, len(oracle.ticks)), oracle, SECOND)


def test_redis_killed_comes_back_and_is_filled_again(system: System, oracle: Oracle, feeds: list[FeedServer]) -> None:
    system.process_of("valkey-server").kill()
    send(feeds, 400.0)
    wait_price(system, 400.0, "redis")
    with system.redis() as client:
        wait_until(lambda: client.hlen("marketflow:live:latest:BTCUSDT") == 3, "the prices are in Redis again")
    wait_served(system, oracle)
    body = system.body("/prices/lowest/ETHUSDT?period=1m")
    check_extreme(body, oracle, "lowest", "ETHUSDT", None)
    check_rows(wait_stored(system, len(oracle.ticks)), oracle, SECOND)


def test_postgres_frozen_windows_wait(system: System, oracle: Oracle, feeds: list[FeedServer]) -> None:
    wait_stored(system, len(oracle.ticks))
    with frozen(system.process_of("postgres")):
        for price in (500.0, 600.0, 700.0):
            send(feeds, price)
            wait_price(system, price, "redis")
            let_pass(1.2)  # its window ends
        wait_until(lambda: status_of(system, "postgres") != "ok", "health says that PostgreSQL is away", 20)
        assert system.body("/health")["status"] == "degraded"
        wait_aggregated(system, oracle)
    check_rows(wait_stored(system, len(oracle.ticks), 30), oracle, SECOND)
    wait_until(lambda: status_of(system, "postgres") == "ok", "PostgreSQL is well again")


def test_postgres_killed_comes_back_and_gets_what_waited(
    system: System, oracle: Oracle, feeds: list[FeedServer]
) -> None:
    postmaster = system.process_of("postgres")
    family = [postmaster, *postmaster.children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    send(feeds, 800.0)
    wait_price(system, 800.0, "redis")

    def stored() -> bool:
        try:
            return system.stored_ticks() >= len(oracle.ticks)
        except Exception as error:  # noqa: BLE001 - psycopg2's errors have no types; any means: not yet
            return not str(error)

    wait_until(stored, "every tick is stored", 30)
    check_rows(system.rows(), oracle, SECOND)
    assert system.metric("marketflow_actor_restarts_total") == 0
