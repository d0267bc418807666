"""Three flooded feeds: what is taken in, what it costs, what is answered meanwhile, and what memory does."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from tests.load import requests
from tests.load.machine import cpu_of
from tests.load.node import MB, Measured, Stretch, running, switch
from tests.load.sources import generator, live_and_test
from tests.load.table import Figure, limit, percentile, ratio
from tests.support.waiting import let_pass

LATEST = ("/prices/latest/BTCUSDT", "/prices/latest/exchange1/ETHUSDT", "/prices/latest/exchange3/SOLUSDT")


class _Lengths(NamedTuple):
    """Seconds."""

    bare: float
    warm_up: float
    ingest: float
    shared: float
    memory: float
    asked: float


FULL = _Lengths(bare=10, warm_up=5, ingest=60, shared=20, memory=300, asked=15)
SHORT = _Lengths(bare=3, warm_up=5, ingest=8, shared=8, memory=30, asked=5)


def figures(short: bool) -> Iterator[Figure]:
    """Measure the bare reader, the whole system, the bare reader again, and two workers, on the same flood."""
    lengths = SHORT if short else FULL
    with generator() as source:
        bare = [bare_reader(source.ports, lengths.bare)]
        with running(live_and_test(source.exchanges, source.exchanges)) as measured:
            measured.wait_for_ticks()
            let_pass(lengths.warm_up)
            generated = cpu_of(source.process)
            stretch = measured.measure(lengths.ingest)
            busy = (cpu_of(source.process) - generated) / stretch.seconds
            memory = list(_memory(measured, lengths.memory))
            asked = list(_asked(measured, lengths.asked))
            held = measured.counts_hold()
        bare.append(bare_reader(source.ports, lengths.bare))
        with running({**live_and_test(source.exchanges, source.exchanges), "server": {"workers": 2}}) as measured:
            measured.wait_connected()
            let_pass(lengths.warm_up)
            shared = measured.measure(lengths.shared)
    yield from _ingest(stretch, bare, busy)
    yield ratio(
        "ingest of the same by two workers / bare reader",
        shared.rate / fmean(each.rate for each in bare),
        0.5,
        f"{shared.rate:,.0f} ticks/s over {shared.seconds:.0f} s, {shared.cost:.2f} µs of CPU each, {shared.cores:.2f} "
        f"cores in both nodes: `server.workers = 2`, each reads some of the feeds",
    )
    yield limit("law of the counts after the flood, violations", float(not held), 0, "", "as GET /health tells")
    yield from asked
    yield from memory


def bare_reader(ports: Sequence[int], seconds: float) -> Stretch:
    """Let the bare reader read for some seconds."""
    command = [sys.executable, "-m", "tests.load.bare_reader", f"{seconds:g}", *map(str, ports)]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return Stretch(found["seconds"], found["ticks"], found["cpu"])


def _ingest(stretch: Stretch, bare: Sequence[Stretch], busy: float) -> Iterator[Figure]:
    rate, cost = fmean(each.rate for each in bare), fmean(each.cost for each in bare)
    yield ratio(
        "ingest of three flooded feeds / bare reader",
        stretch.rate / rate,
        0.5,
        f"{stretch.rate:,.0f} ticks/s over {stretch.seconds:.0f} s ({stretch.cores:.2f} cores in the node, "
        f"{busy:.2f} in testgen); bare {' and '.join(f'{each.rate:,.0f}' for each in bare)} "
        f"({fmean(each.cores for each in bare):.2f} cores)",
    )
    yield ratio(
        "the same by CPU a tick, bare reader / node", cost / stretch.cost, 0.5, f"bare {cost:.2f} µs a tick; aim 0.7"
    )
    yield limit("CPU of a tick in the node, flooded", stretch.cost, 1.3, "µs", "aim 1.0")


def _memory(measured: Measured, seconds: float) -> Iterator[Figure]:
    samples: list[float] = []
    before = measured.sample()
    while time.monotonic() - before.time < seconds:
        samples.append(measured.rss())
        let_pass(1.0)
    stretch = measured.since(before)
    ends = max(1, len(samples) // 10)
    growth = fmean(samples[-ends:]) - fmean(samples[:ends])
    yield limit(
        "growth of the node's memory, flooded",
        growth / MB,
        10,
        "MB",
        f"over {stretch.seconds:.0f} s and {stretch.ticks / 1e6:,.0f} million ticks "
        f"({stretch.rate:,.0f}/s, {stretch.cost:.2f} µs each)",
    )
    yield limit(
        "memory in all, flooded",
        measured.memory() / MB,
        200,
        "MB",
        f"parent, gunicorn and node; the node alone {samples[-1] / MB:.0f} MB RSS, "
        f"Valkey {measured.memory_of('valkey-server') / MB:.0f} MB, "
        f"PostgreSQL {measured.memory_of('postgres') / MB:.0f} MB besides",
    )


def _asked(measured: Measured, seconds: float) -> Iterator[Figure]:
    load = requests.run(measured.port, LATEST, 4, seconds)
    how = f"{load.requests} requests over 4 connections, {load.rate:,.0f}/s"
    yield limit("latest over REST while flooded, p50", load.latency(0.5), 20, "ms", how)
    yield limit("latest over REST while flooded, p99", load.latency(0.99), 100, "ms", how)
    yield limit("latest over REST while flooded, errors", load.errors, 0, "", how)
    health = [_seconds_of_health(measured) for _ in range(20)]
    yield limit(
        "health while flooded, slowest of 20", max(health), 1, "s", f"median {percentile(health, 0.5) * 1000:.0f} ms"
    )
    switches = [switch(measured, mode) for mode in ("live", "test", "live", "test")]
    yield limit("mode switch while flooded, slowest of 4", max(switches), 1, "s", "both modes are flooded")


def _seconds_of_health(measured: Measured) -> float:
    began = time.monotonic()
    assert measured.system.get("/health").status == 200
    return time.monotonic() - began
