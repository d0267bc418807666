"""What REST answers beside a bare Falcon resource on the same gunicorn worker, and how fairly it serves connections."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from statistics import median
from typing import NamedTuple

from marketflow.config import Settings
from tests.load import requests
from tests.load.bare_resource import BareServer, running_bare
from tests.load.history import write_past
from tests.load.node import Measured, running_on
from tests.load.requests import Load
from tests.load.sources import names
from tests.load.table import Figure, limit, ratio
from tests.support.system import installed
from tests.support.waiting import let_pass

SYMBOLS = Settings.model_fields["symbols"].default.allowed
EXCHANGES = names(3)
RECENT = ("1s", "3s", "5s", "10s", "30s", "1m", "3m", "5m")
STORED = ("1h", "3h", "12h", "1d", "7d", "30d")
CONNECTIONS = 16
FAIR = (16, 256)


class _Lengths(NamedTuple):
    """Rounds of what is compared in turns, and the seconds of each load, of looking at the idle node, and of the rest.

    `stored` is a whole minute, as what PostgreSQL answers is kept until the next window."""

    rounds: int
    seconds: float
    stored: float
    idle: float
    fair: float


FULL = _Lengths(rounds=5, seconds=3.0, stored=60.0, idle=10.0, fair=8.0)
SHORT = _Lengths(rounds=2, seconds=1.5, stored=8.0, idle=3.0, fair=3.0)
DAYS = 30


class _Turn(NamedTuple):
    """One load on a server, and the CPU microseconds that a request took there besides what it does when idle."""

    load: Load
    cost: float


def _mixed(kinds: Sequence[str], periods: Sequence[str]) -> list[str]:
    """Return the paths of all kinds, periods and symbols, of each exchange and of all, in an order without order."""
    where = ["", *(f"{exchange}/" for exchange in EXCHANGES)]
    paths = [
        f"/prices/{kind}/{place}{symbol}?period={period}"
        for kind, place, symbol, period in product(kinds, where, SYMBOLS, periods)
    ]
    random.Random(3).shuffle(paths)
    return paths


def _latest() -> list[str]:
    return [f"/prices/latest/{place}{symbol}" for place in ["", "exchange1/", "exchange3/"] for symbol in SYMBOLS]


KINDS = ("highest", "lowest", "average")
COMPARED = {
    "latest": (["/prices/latest/BTCUSDT"], 0.8),
    "latest, mixed symbols and exchanges": (_latest(), 0.8),
    "highest, lowest, average of 1s to 5m, mixed": (_mixed(KINDS, RECENT), 0.6),
}


def figures(short: bool) -> Iterator[Figure]:
    """Compare in turns on the feeds of test mode, then look at fairness."""
    lengths = SHORT if short else FULL
    with installed({}) as system, running_bare() as bare:
        began = time.monotonic()
        rows = write_past(system.data_dir, SYMBOLS, EXCHANGES, DAYS)
        past = f"{rows:,} rows, written in {time.monotonic() - began:.0f} s before"
        with running_on(system) as measured:
            measured.wait_for_ticks(100)
            yield from _compared(measured, bare, lengths, past)
            for connections in FAIR:
                yield _fairness(measured, bare, connections, lengths.fair)


def _compared(measured: Measured, bare: BareServer, lengths: _Lengths, past: str) -> Iterator[Figure]:
    before, began = measured.cpu(), time.monotonic()
    let_pass(lengths.idle)
    idle = (measured.cpu() - before) / (time.monotonic() - began)
    bares: list[_Turn] = []
    turns: dict[str, list[_Turn]] = {name: [] for name in COMPARED}
    for _ in range(lengths.rounds):
        bares.append(_turn(bare.port, bare.cpu, 0.0, COMPARED["latest"][0], lengths.seconds))
        for name, (paths, _) in COMPARED.items():
            turns[name].append(_turn(measured.port, measured.cpu, idle, paths, lengths.seconds))
    for name, (_, target) in COMPARED.items():
        yield from _beside(name, target, turns[name], bares)
    turn = _turn(measured.port, measured.cpu, idle, _mixed(KINDS, STORED), lengths.stored)
    bares.append(_turn(bare.port, bare.cpu, 0.0, COMPARED["latest"][0], lengths.seconds))
    yield from _beside("highest, lowest, average of 1h to 30d, mixed", 0.15, [turn], bares[-1:], past)


def _beside(
    name: str, target: float, turns: Sequence[_Turn], bares: Sequence[_Turn], more: str = ""
) -> Iterator[Figure]:
    """Return the ratio of the rates turn by turn, and the errors."""
    cost, bare_cost = median(turn.cost for turn in turns), median(turn.cost for turn in bares)
    loads = [turn.load for turn in turns]
    yield ratio(
        f"REST, {name} / bare resource",
        median(turn.load.rate / bare.load.rate for turn, bare in zip(turns, bares, strict=True)),
        target,
        f"{median(load.rate for load in loads):,.0f}/s against {median(bare.load.rate for bare in bares):,.0f}/s, "
        f"{CONNECTIONS} connections, p50 {median(load.latency(0.5) for load in loads):.2f} ms, "
        f"p99 {median(load.latency(0.99) for load in loads):.2f} ms; by CPU {bare_cost / cost:.2f} "
        f"({cost:.0f} µs against {bare_cost:.0f}, idle node taken off); "
        f"client {median(load.cpu / load.requests for load in loads) * 1e6:.0f} µs a request{more and '; '}{more}",
    )
    requested = sum(load.requests for load in loads)
    errors = sum(load.errors for load in loads)
    yield limit(f"REST, {name}, errors", errors, 0, "", f"of {requested:,} requests")


def _turn(port: int, cpu: Callable[[], float], idle: float, paths: Sequence[str], seconds: float) -> _Turn:
    before = cpu()
    load = requests.run(port, paths, CONNECTIONS, seconds)
    return _Turn(load, (cpu() - before - idle * load.seconds) / load.requests * 1e6)


def _fairness(measured: Measured, bare: BareServer, connections: int, seconds: float) -> Figure:
    load = requests.run(measured.port, COMPARED["latest"][0], connections, seconds)
    reference = requests.run(bare.port, COMPARED["latest"][0], connections, seconds / 2)
    return limit(
        f"fairness over {connections} connections, p99 / p50",
        load.latency(0.99) / load.latency(0.5),
        20,
        "",
        f"p50 {load.latency(0.5):.1f} ms, p99 {load.latency(0.99):.1f} ms, max {load.latencies[-1] * 1000:.0f} ms; "
        f"requests by connection {load.by_connection[0]} to {load.by_connection[-1]}, {load.errors} errors; "
        f"bare resource {reference.latency(0.99) / reference.latency(0.5):.1f}",
    )
