"""A hostile exchange: whatever it sends, no actor fails, memory is bounded, and the other exchanges are served."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.feed_check import PIECES, check_connection
from tests.support.feed_server import FeedServer, line, now_ms
from tests.support.oracle import Oracle
from tests.support.system import System, installed, live_config
from tests.support.waiting import wait_until

STREAMS = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=20)), max_size=12).map(b"".join)
FLOODS = {
    "blank lines": b"\n" * 65_536,
    "lines that are nothing": b"x\n" * 32_768,
    "objects that are no ticks": b"{}\n" * 21_845,
    "ticks of no known pair": line("NOPE", 1.0, 1) * 1_500,
    "ticks of long ago": line("BTCUSDT", 1.0, 1) * 1_500,
    "brackets": b"[" * 65_000 + b"\n",
    "a line without end": b"y" * 65_536,
}


@settings(max_examples=400, deadline=None)
@given(STREAMS, st.lists(st.integers(0, 400), max_size=4))
def test_any_bytes_are_counted_line_by_line(stream: bytes, cuts: list[int]) -> None:
    check_connection(stream, [min(cut, len(stream)) for cut in cuts])


@pytest.fixture(scope="module")
def feeds() -> Iterator[list[FeedServer]]:
    servers = [FeedServer("hostile", Oracle()), FeedServer("honest", Oracle())]
    yield servers
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def system(feeds: list[FeedServer]) -> Iterator[System]:
    with installed(live_config(feeds)) as system:
        system.start_ready()
        yield system


@contextmanager
def flooding(feed: FeedServer, data: bytes) -> Iterator[None]:
    """Send the same bytes, as fast as they are taken."""
    over = threading.Event()

    def flood() -> None:
        with suppress(OSError):
            while not over.is_set():
                feed.send(data)

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        feed.cut()
        thread.join(30)


def serves(system: System, price: float) -> bool:
    """Tell whether the honest exchange's newest price is this one."""
    answer = system.get("/prices/latest/honest/ETHUSDT")
    return answer.status == 200 and bool(answer.body["price"] == price)


def node_memory(system: System) -> int:
    """Return the resident bytes of all Python processes of a system."""
    found = 0
    for process in system.processes():
        with suppress(psutil.NoSuchProcess):
            found += process.memory_info().rss if process.name().startswith("python") else 0
    return found


@pytest.mark.parametrize("what", FLOODS)
def test_a_flood_of_bad_lines_leaves_others_their_turn(system: System, feeds: list[FeedServer], what: str) -> None:
    hostile, honest = feeds
    before = node_memory(system)
    received = system.metric("marketflow_ticks_received_total", exchange="hostile")
    with flooding(hostile, FLOODS[what]):
        wait_until(
            lambda: system.metric("marketflow_ticks_received_total", exchange="hostile") > received, "the flood is read"
        )
        waited: list[float] = []
        for number in range(20):
            price = 1.0 + number + len(what) / 1_000
            sent = time.monotonic()
            honest.send_ticks([("ETHUSDT", price, now_ms())])
            wait_until(partial(serves, system, price), "an honest tick is served")
            waited.append(time.monotonic() - sent)
        assert sorted(waited)[-2] < 1.0, waited
        assert node_memory(system) - before < 96 * 1_048_576


def test_prices_that_cannot_be_leave_an_answer_for_every_kind(system: System, feeds: list[FeedServer]) -> None:
    now = now_ms()
    feeds[1].send_ticks([("TONUSDT", 6.5, now)])
    feeds[0].send_ticks([("TONUSDT", 1.7e308, now), ("TONUSDT", 1.7e308, now), ("TONUSDT", 5e-324, now)])
    wait_until(lambda: system.get("/prices/highest/TONUSDT").body.get("ticks") == 4, "all are served")
    assert system.body("/prices/highest/TONUSDT")["price"] == 1.7e308
    assert system.body("/prices/lowest/TONUSDT")["price"] == 5e-324
    assert isinstance(system.body("/prices/average/TONUSDT")["price"], float)
    assert system.body("/prices/average/honest/TONUSDT")["price"] == 6.5
    wait_until(lambda: sum(row.symbol == "TONUSDT" for row in system.rows()) == 2, "they are stored")
    for kind in ("highest", "lowest", "average"):
        assert isinstance(system.body(f"/prices/{kind}/TONUSDT?period=1h")["price"], float)


def test_every_line_was_counted_and_no_actor_failed(system: System) -> None:
    wait_until(lambda: system.body("/health")["components"]["ticks"]["in_flight"] == 0, "all lines are handled", 30)
    ticks = system.body("/health")["components"]["ticks"]
    assert ticks["status"] == "ok"
    assert ticks["received"] == ticks["rejected"] + ticks["aggregated"]
    assert ticks["failed"] == 0
    assert system.metric("marketflow_actor_restarts_total") == 0
    assert "Traceback" not in system.log
