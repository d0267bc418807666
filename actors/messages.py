"""What MarketFlow's actors tell each other. A batch is the message: never a tick."""

from typing import NamedTuple

from gevent.event import Event

from marketflow.domain.folding import SliceBars
from marketflow.domain.mode import Mode
from marketflow.domain.view import Flush


class Batch(NamedTuple):
    """Whole lines as an exchange sent them."""

    mode: Mode
    exchange: str
    order: int
    """Place in the order of receipt: grows with every batch of an exchange, across restarts too."""
    received_at: int
    """Unix ms."""
    lines: int
    data: bytes


class BarBatch(NamedTuple):
    """The good ticks of one batch, folded into the bars of their slices."""

    mode: Mode
    exchange: str
    bars: SliceBars
    ticks: int
    received_at: int
    """Unix ms."""


class Learn(NamedTuple):
    """What another node has written to Redis."""

    mode: Mode
    flush: Flush


class Settle(NamedTuple):
    """The cache says when everything told to it before this is in its answers."""

    settled: Event


class FollowMode(NamedTuple):
    """The mode of all nodes may have changed."""
