"""Two workers beside one: what they answer together, whether they answer the same, and that feeds are read once."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from statistics import median
from typing import Any

import psutil

from tests.load import requests
from tests.load.node import Measured, running, switch
from tests.load.requests import Client, Load, rendered
from tests.load.sources import ProbeFeed, generator, live_and_test, names, probe_feed
from tests.load.table import Figure, limit, percentile, ratio
from tests.support.waiting import let_pass, wait_until

LATEST = ("/prices/latest/BTCUSDT", "/prices/latest/exchange1/ETHUSDT")
CONNECTIONS = 64
COUNTED = names(3)
COUNT, RATE = 20_000, 10_000
"""Ticks of each exchange, in all and per second, that are counted."""
_MOST_CLIENTS = 64
_TOO_LONG = 10.0  # seconds


def figures(short: bool) -> Iterator[Figure]:
    """Compare in turns at the default rate, then count ticks of feeds that end."""
    rounds, seconds, marks = (2, 2.0, 50) if short else (5, 4.0, 300)
    with ExitStack() as stack:
        steady = stack.enter_context(generator(rate=50))
        counted = stack.enter_context(generator(3, "--count", str(COUNT), rate=RATE))
        feed = stack.enter_context(probe_feed("BTCUSDT"))
        one = stack.enter_context(running(live_and_test(steady.exchanges, steady.exchanges)))
        config = live_and_test([*counted.exchanges, feed.exchange], [*steady.exchanges, feed.exchange])
        more: dict[str, dict[str, Any]] = {
            "server": {"workers": 2},
            "aggregation": {"interval": "1s", "lateness": "500ms"},
        }
        two = stack.enter_context(running({**config, **more}))
        assert len(two.workers) == 2
        feed.accept()
        for each in (one, two):
            each.wait_for_ticks(100)
        yield _together(two, feed, marks)  # first: a feed that says nothing for 30 s is given up
        yield _throughput(one, two, rounds, seconds)
        yield from _counted(two)


def _throughput(one: Measured, two: Measured, rounds: int, seconds: float) -> Figure:
    loads: list[tuple[Load, Load]] = []
    for _ in range(rounds):
        first, second = (requests.run(each.port, LATEST, CONNECTIONS, seconds) for each in (one, two))
        loads.append((first, second))
    errors = sum(load.errors for pair in loads for load in pair)
    return ratio(
        "REST of two workers / one",
        median(second.rate / first.rate for first, second in loads),
        1.4,
        f"{median(second.rate for _, second in loads):,.0f}/s against "
        f"{median(first.rate for first, _ in loads):,.0f}/s, {CONNECTIONS} connections, {errors} errors; the client "
        f"takes {median(second.cpu / second.seconds for _, second in loads):.2f} of the cores that they share",
    )


def _clients(measured: Measured) -> list[Client]:
    """Return a connection to each worker."""
    found: dict[int, Client] = {}
    for _ in range(_MOST_CLIENTS):
        client = Client(measured.port)
        client.ask(rendered("/health/live"))
        own = client.socket.getsockname()[1]
        worker = next(worker.pid for worker in measured.workers if _serves(worker, own))
        if worker in found:
            client.close()
        found.setdefault(worker, client)
        if len(found) == len(measured.workers):
            break
    assert len(found) == len(measured.workers), "all connections went to one worker"
    return list(found.values())


def _serves(worker: psutil.Process, port: int) -> bool:
    """Tell whether a worker has the other end of a connection."""
    return any(each.raddr and each.raddr.port == port for each in worker.net_connections("tcp"))


def _together(two: Measured, feed: ProbeFeed, marks: int) -> Figure:
    """Send markers and see how long it takes until both workers show each."""
    request = rendered(f"/prices/latest/{feed.name}/{feed.symbol}")
    clients = _clients(two)
    waits: list[float] = []
    for number in range(marks):
        price = 2000.5 + number
        feed.send(price)
        sent = time.perf_counter()
        for client in clients:
            while b'"price":%r,' % price not in client.ask(request):
                assert time.perf_counter() - sent < _TOO_LONG, "a worker does not show a price"
        waits.append((time.perf_counter() - sent) * 1000)
    for client in clients:
        client.close()
    return limit(
        "a tick seen from both workers, p99",
        percentile(waits, 0.99),
        None,
        "ms",
        f"{marks} ticks, p50 {percentile(waits, 0.5):.1f} ms",
    )


def _counted(two: Measured) -> Iterator[Figure]:
    """Let feeds run to their end: each tick is stored once, and both workers answer the same."""
    switch(two, "live")
    wait_until(lambda: _stored(two) >= len(COUNTED) * COUNT, "all ticks are stored", 30)
    let_pass(2.0)  # more would come now if a feed were read twice
    more = _stored(two) - len(COUNTED) * COUNT
    clients = _clients(two)
    answers = [_prices(client) for client in clients]
    for client in clients:
        client.close()
    yield limit("ticks too many where two workers read", more, 0, "", f"of {len(COUNTED) * COUNT:,} sent once")
    different = sum(a != b for a, b in zip(*answers, strict=True))
    yield limit("prices that differ between two workers", different, 0, "", f"of {len(answers[0])}")


def _stored(two: Measured) -> int:
    """Return the ticks in the rows of the feeds that end."""
    with closing(two.system.postgres()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(tick_count), 0)::bigint FROM aggregated_prices"
            " WHERE mode = 'live' AND exchange = ANY(%s)",
            (COUNTED,),
        )
        return int(cursor.fetchone()[0])


def _prices(client: Client) -> list[tuple[str, str, float, int]]:
    body = json.loads(client.ask(rendered("/prices/latest")).partition(b"\r\n\r\n")[2])
    return sorted((each["symbol"], each["exchange"], each["price"], each["timestamp"]) for each in body["prices"])
