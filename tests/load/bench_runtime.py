"""What messages cost: supervised, on a bare greenlet runtime, and on Pykka's threads.

The bare runtime is Pykka with three hooks filled from gevent and nothing else: no bound, no lanes, no counters.
`alone` is a GeventActor without a supervisor.
All run in this one process, unpatched, in turns; of each the best turn counts, the least disturbed one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
import pykka
from gevent.queue import SimpleQueue

from actors.runtime import ActorSystem, ChildSpec, GeventActor, GeventFuture, MailboxSpec, SupervisorSpec

TURNS = 12
TELLS = 10_000
CALLS = 2_000
DEMANDS = [
    ("tell", "supervised / threads", 5.0),
    ("proxy call", "supervised / threads", 3.0),
    ("tell", "supervised / bare", 0.8),
    ("ask", "supervised / bare", 0.8),
    ("proxy call", "supervised / bare", 0.8),
    ("tell", "supervised / alone", 0.8),
    ("ask", "supervised / alone", 0.8),
    ("proxy call", "supervised / alone", 0.8),
]


class Echo:
    def on_receive(self, message: Any) -> Any:
        return message

    def echo(self, value: Any) -> Any:
        return value


class Threaded(Echo, pykka.ThreadingActor):
    pass


class Bare(Echo, pykka.Actor):
    @staticmethod
    def _create_actor_inbox() -> Any:
        return SimpleQueue()

    @staticmethod
    def _create_future() -> GeventFuture[Any]:
        return GeventFuture()

    def _start_actor_loop(self) -> None:
        gevent.spawn(self._actor_loop)


class Supervised(Echo, GeventActor):
    # As unbounded as the others: how a full mailbox holds is not what is compared.
    mailbox = MailboxSpec(bound=10 * TELLS)


def per_second(count: int, run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return count / (time.perf_counter() - began)


def measure(ref: Any, **in_order: Any) -> dict[str, float]:
    """Messages per second, sent and handled."""
    proxy = ref.proxy()
    proxy.echo(0).get()

    def tell() -> None:
        for number in range(TELLS):
            ref.tell(number)
        ref.ask(None, **in_order)

    def ask() -> None:
        for number in range(CALLS):
            ref.ask(number)

    def call() -> None:
        for number in range(CALLS):
            proxy.echo(number).get()

    return {
        "tell": per_second(TELLS, tell),
        "ask": per_second(CALLS, ask),
        "proxy call": per_second(CALLS, call),
    }


def main() -> int:
    """Print the table; 1 if it misses what is demanded."""
    system = ActorSystem(SupervisorSpec("root", children=[ChildSpec("echo", Supervised)]))
    system.start()
    threaded, bare, alone = Threaded.start(), Bare.start(), Supervised.start()
    turns: dict[str, list[dict[str, float]]] = {
        "threads": [],
        "bare": [],
        "alone": [],
        "supervised": [],
    }
    for _ in range(TURNS):
        turns["threads"].append(measure(threaded))
        turns["bare"].append(measure(bare))
        turns["alone"].append(measure(alone, control=False))
        turns["supervised"].append(measure(system.address("root/echo"), control=False))
    threaded.stop()
    bare.stop()
    alone.stop()
    system.stop()

    kinds = list(turns["bare"][0])
    best = {name: {kind: max(turn[kind] for turn in measured) for kind in kinds} for name, measured in turns.items()}
    print(f"{'messages per second':24}" + "".join(f"{kind:>14}" for kind in kinds))
    for name, figures in best.items():
        print(f"{name:24}" + "".join(f"{figures[kind]:14,.0f}" for kind in kinds))
    missed = 0
    for kind, ratio, demanded in DEMANDS:
        above, below = ratio.split(" / ")
        value = best[above][kind] / best[below][kind]
        missed += value < demanded
        print(f"{kind:12} {ratio:24} {value:6.2f}  (at least {demanded})" + (" MISSED" if value < demanded else ""))
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
