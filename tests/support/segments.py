"""What exchanges sent, connection by connection: what a kill may have cost is the end of one of them."""

import json
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import NamedTuple

from tests.support.market_checks import same_row
from tests.support.oracle import Oracle, Tick, row_of
from tests.support.system import StoredRow


class SentTick(NamedTuple):
    """A tick, and when it was sent (Unix ms)."""

    tick: Tick
    sent_at: int


class Loss(NamedTuple):
    """What was sent before a kill and is not stored: ticks, and how long before the kill the first was sent (ms)."""

    ticks: int
    longest_ago: int


class Segments(Oracle):
    """Notes as an oracle does, and keeps the connections of an exchange apart. For whole and good lines only."""

    def __init__(self) -> None:
        super().__init__()
        self._connections: dict[str, list[deque[tuple[bytes, int]]]] = defaultdict(lambda: [deque()])
        self._read: dict[tuple[str, int], list[SentTick]] = {}

    def sent(self, exchange: str, data: bytes, now: int) -> None:
        """Note bytes that an exchange sent."""
        self._connections[exchange][-1].append((data, now))

    def cut(self, exchange: str) -> None:
        """Note that the connection ended."""
        self._connections[exchange].append(deque())

    def connections(self, exchange: str) -> list[list[SentTick]]:
        """Return the ticks of each connection that brought any, in order."""
        for number, sends in enumerate(self._connections[exchange]):
            ticks = self._read.setdefault((exchange, number), [])
            while sends:
                ticks += _ticks_of(exchange, *sends.popleft())
        found = [self._read[exchange, number] for number in range(len(self._connections[exchange]))]
        return [ticks for ticks in found if ticks]

    @property
    def exchanges(self) -> list[str]:
        """The exchanges that sent anything."""
        return sorted(self._connections)


def _ticks_of(exchange: str, data: bytes, now: int) -> Iterator[SentTick]:
    for line in data.splitlines():
        fields = json.loads(line)
        yield SentTick(Tick(exchange, fields["symbol"], fields["price"], fields["timestamp"]), now)


def check_loss(rows: list[StoredRow], sent: Segments, interval: int, killed_at: int) -> Loss:
    """Check that every window has what was sent on the connections, but for the end of what the first one of each
    exchange brought; return what that end was. No window may have more, nor one tick twice, nor one changed."""
    stored = {(row.exchange, row.symbol, row.window_start): row.row for row in rows}
    lost = 0
    first_lost = killed_at
    expected_keys = set()
    for exchange in sent.exchanges:
        connections = sent.connections(exchange)
        before: dict[tuple[str, str, int], list[SentTick]] = defaultdict(list)
        after: dict[tuple[str, str, int], list[SentTick]] = defaultdict(list)
        for number, connection in enumerate(connections):
            for item in connection:
                tick = item.tick
                key = (exchange, tick.symbol, tick.time - tick.time % interval)
                (after if number else before)[key].append(item)
        for key in before.keys() | after.keys():
            expected_keys.add(key)
            row = stored.get(key)
            kept = (row.ticks if row else 0) - len(after[key])
            assert 0 <= kept <= len(before[key]), (key, row, len(before[key]), len(after[key]))
            ticks = [item.tick for item in before[key][:kept] + after[key]]
            if row is not None:
                assert same_row(row, row_of(ticks)), (key, row, row_of(ticks))
            for item in before[key][kept:]:
                lost += 1
                first_lost = min(first_lost, item.sent_at)
    assert stored.keys() <= expected_keys
    return Loss(lost, killed_at - first_lost)
