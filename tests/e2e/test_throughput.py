"""100,000 ticks a second over three feeds: all of them in PostgreSQL, exactly, and prices served meanwhile."""

import random
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.feed_server import FeedServer, now_ms
from tests.support.market_checks import check_extreme, check_rows, wait_stored
from tests.support.oracle import SYMBOLS, Oracle
from tests.support.system import System, installed, live_config
from tests.support.waiting import wait_until

RATE = 100_000  # ticks per second, over all feeds
SECONDS = 5
STEP = 0.05  # seconds of ticks that are sent at once
SECOND = 1_000


def rendered(seed: int, start: int) -> list[bytes]:
    """Return one feed's pieces; the first millisecond of their ticks is `start`."""
    chance = random.Random(seed)
    pieces = []
    ticks = round(RATE / 3 * STEP)
    for step in range(round(SECONDS / STEP)):
        first = start + round(step * STEP * SECOND)
        lines = [
            b'{"symbol":"%s","price":%.3f,"timestamp":%d}\n'
            % (
                chance.choice(SYMBOLS).encode(),
                chance.uniform(90, 110),
                first + chance.randrange(round(STEP * SECOND)),
            )
            for _ in range(ticks)
        ]
        pieces.append(b"".join(lines))
    return pieces


@pytest.fixture
def system(feeds: list[FeedServer]) -> Iterator[System]:
    with installed(live_config(feeds)) as system:
        system.start_ready()
        for feed in feeds:
            feed.wait_connected()
        yield system


def test_every_tick_of_a_fast_feed_is_stored(system: System, oracle: Oracle, feeds: list[FeedServer]) -> None:
    start = now_ms() + 10 * SECOND  # rendering comes first; the skew allows for a minute
    pieces = [rendered(seed, start) for seed in range(3)]
    total = sum(piece.count(b"\n") for feed in pieces for piece in feed)
    pause = threading.Event()
    began = time.monotonic()

    def play(feed: FeedServer, own: list[bytes]) -> None:
        for step, piece in enumerate(own):
            pause.wait(max(0.0, began + step * STEP - time.monotonic()))
            feed.send(piece)

    threads = [threading.Thread(target=play, args=pair) for pair in zip(feeds, pieces, strict=True)]
    for thread in threads:
        thread.start()
    answers = 0
    while any(thread.is_alive() for thread in threads):
        answers += system.get("/prices/latest/BTCUSDT").status == 200
        pause.wait(STEP)
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    assert took < SECONDS * 1.5, "the feeds were held up"
    assert answers > 10

    wait_until(lambda: system.metric("marketflow_ticks_aggregated_total") >= total, "all are aggregated", 10)
    rows = wait_stored(system, total, timeout=40)
    assert total == len(oracle.ticks)
    check_rows(rows, oracle, SECOND)
    for kind in ("highest", "lowest"):
        check_extreme(system.body(f"/prices/{kind}/BTCUSDT?period=5m"), oracle, kind, "BTCUSDT", None)
