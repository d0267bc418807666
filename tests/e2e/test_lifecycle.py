"""Stops, kills and starts: nothing that was received is lost, and the next start goes on where the last one ended."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.feed_server import FeedServer, now_ms
from tests.support.market_checks import check_extreme, check_rows, same_row, wait_aggregated, wait_metric, wait_stored
from tests.support.oracle import Oracle
from tests.support.system import System, installed, live_config
from tests.support.waiting import let_pass, wait_until

SECOND = 1_000
MINUTE = 60 * SECOND


@contextmanager
def flooding(feeds: list[FeedServer]) -> Iterator[None]:
    """Send as fast as it is taken, until the end of the block or of the connection."""
    done = threading.Event()

    def flood(feed: FeedServer) -> None:
        while not done.is_set():
            now = now_ms()
            try:
                feed.send_ticks((("BTCUSDT", 100.0 + number % 8, now) for number in range(200)), timeout=0.1)
            except (OSError, TimeoutError):
                return

    threads = [threading.Thread(target=flood, args=(feed,)) for feed in feeds]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for feed in feeds:
            feed.cut()
        for thread in threads:
            thread.join(30)


@pytest.fixture
def system(feeds: list[FeedServer]) -> Iterator[System]:
    with installed(live_config(feeds, "1m", "2s")) as system:
        system.start_ready()
        yield system


def send_some(feeds: list[FeedServer], base: float) -> None:
    """Send ticks of now, and of the window before."""
    now = now_ms()
    for number, feed in enumerate(feeds):
        feed.send_ticks(
            (symbol, base + number + step / 8, now - step * 40)
            for step in range(100)
            for symbol in ("BTCUSDT", "ETHUSDT")
        )


def test_a_restart_resumes_the_open_window_exactly() -> None:
    oracle = Oracle()
    feeds = [FeedServer(f"exchange{number}", oracle) for number in (1, 2, 3)]
    with installed(live_config(feeds, "1m", "2s")) as system:
        system.start_ready()
        send_some(feeds, 100.0)
        wait_aggregated(system, oracle)
        assert system.terminate() == 0
        assert system.processes() == []

        system.start_ready()
        check_rows(system.rows(), oracle, MINUTE)
        body = system.body("/prices/highest/BTCUSDT?period=1h")
        check_extreme(body, oracle, "highest", "BTCUSDT", None)
        assert body["ticks"] == len(oracle.of("BTCUSDT"))
        assert system.body("/prices/latest/BTCUSDT")["price"] in {tick.price for tick in oracle.latest("BTCUSDT")}

        before = len(oracle.ticks)
        send_some(feeds, 50.0)
        wait_metric(system, len(oracle.ticks) - before, "marketflow_ticks_aggregated_total")
        assert system.terminate() == 0
        system.start_ready()
        check_rows(system.rows(), oracle, MINUTE)
    for feed in feeds:
        feed.close()


def test_a_stop_under_full_load_is_clean_and_stores_what_was_received(
    system: System, oracle: Oracle, feeds: list[FeedServer]
) -> None:
    with flooding(feeds):
        wait_until(lambda: system.metric("marketflow_ticks_aggregated_total") > 20_000, "it is under load", 30)
        assert system.terminate(10) == 0
    assert system.processes() == []
    assert "Traceback" not in system.log
    system.start_ready()
    rows = system.rows()
    stored = sum(row.row.ticks for row in rows)
    assert 20_000 < stored <= len(oracle.ticks)
    for row in rows:  # the flood repeats eight prices in order: its own oracle
        assert row.row.low >= 100.0
        assert row.row.high <= 107.0
        assert 103.0 < row.row.average < 104.0


def test_a_second_signal_ends_it_at_once(system: System) -> None:
    system.signal(signal.SIGINT)
    system.signal(signal.SIGINT)
    system.wait(5)
    wait_until(lambda: not system.processes(), "its servers end too")
    system.start_ready()


def test_killing_everything_loses_no_tick_that_was_kept(feeds: list[FeedServer]) -> None:
    oracle = Oracle()
    servers = [FeedServer(f"exchange{number}", oracle) for number in (1, 2, 3)]
    with installed(live_config(servers, "1m", "2s")) as system:
        for base in (100.0, 50.0, 200.0):
            system.start_ready()
            before = len(oracle.ticks)
            send_some(servers, base)
            sent = len(oracle.ticks) - before
            wait_metric(system, sent, "marketflow_ticks_aggregated_total")
            let_pass(0.3)  # a kill may cost what was received in the last 100 ms
            system.kill()
            for server in servers:
                server.cut()
        system.start_ready()
        body = system.body("/prices/lowest/ETHUSDT?period=1h")
        check_extreme(body, oracle, "lowest", "ETHUSDT", None)
        assert body["ticks"] == len(oracle.of("ETHUSDT"))
        assert system.terminate() == 0
        system.start_ready()
        check_rows(system.rows(), oracle, MINUTE)
    for server in servers:
        server.close()


def test_killing_everything_under_load_leaves_data_to_start_on(
    system: System, oracle: Oracle, feeds: list[FeedServer]
) -> None:
    first = len(oracle.ticks)
    with flooding(feeds):
        wait_until(lambda: system.metric("marketflow_ticks_aggregated_total") > 20_000, "it is under load", 30)
        let_pass(0.5)  # a kill may cost what was received in the last 100 ms
        system.kill()
    sent = len(oracle.ticks) - first
    system.start_ready()
    wait_until(
        lambda: system.get("/prices/average/BTCUSDT?period=1h").status == 200, "what was received is known again"
    )
    assert 20_000 < system.body("/prices/average/BTCUSDT?period=1h")["ticks"] <= sent
    assert system.terminate() == 0
    system.start_ready()
    rows = system.rows()
    assert 20_000 < sum(row.row.ticks for row in rows) <= sent
    assert all(100.0 <= row.row.low <= row.row.average <= row.row.high <= 107.0 for row in rows)
    for feed in feeds:
        feed.send_ticks([("SOLUSDT", 5.0, now_ms())])
    wait_until(lambda: system.get("/prices/latest/SOLUSDT").status == 200, "prices come again")


def test_a_killed_node_is_not_survived_by_its_servers(system: System) -> None:
    system.signal(signal.SIGKILL)
    wait_until(lambda: not system.processes(), "nothing of it is left", 15)
    system.start_ready()


def test_one_second_windows_survive_a_stop_in_their_middle() -> None:
    oracle = Oracle()
    feed = FeedServer("exchange1", oracle)
    with installed(live_config([feed])) as system:
        for _ in range(2):
            system.start_ready()
            before = len(oracle.ticks)
            now = now_ms()
            feed.send_ticks(("TONUSDT", 1.0 + step / 8, now - step * 7) for step in range(300))
            sent = len(oracle.ticks) - before
            wait_metric(system, sent, "marketflow_ticks_aggregated_total")
            assert system.terminate() == 0
        system.start_ready()
        rows = {row.window_start: row.row for row in wait_stored(system, len(oracle.ticks))}
        expected = {start: row for (_, _, start), row in oracle.windows(SECOND).items()}
        assert rows.keys() == expected.keys()
        assert all(same_row(row, expected[start]) for start, row in rows.items())
    feed.close()
