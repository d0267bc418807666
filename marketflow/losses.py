"""Counting what is lost: a message that no actor handles to the end takes its ticks with it."""

from actors.messages import BarBatch, Batch
from actors.runtime import DeadLettered, Lifecycle
from marketflow.ports import Meters

_LOST = frozenset({"failed", "stopped"})
"""The reasons of dead letters that were taken in. The sender of any other learns of it, and keeps or counts it."""


class LossCounter:
    """Subscribes to an actor system; counts batches that died as failed. Queries lose what the cache fails on, but the
    windows do not, so that is no loss here."""

    def __init__(self, meters: Meters, aggregator: str) -> None:
        self._meters = meters
        self._aggregator = aggregator

    def __call__(self, event: Lifecycle) -> None:
        """Take an event."""
        if not isinstance(event, DeadLettered) or event.reason not in _LOST:
            return
        message = event.message
        if isinstance(message, Batch):
            self._meters.failed(message.exchange, message.lines)
        elif isinstance(message, BarBatch) and event.path == self._aggregator:
            self._meters.failed(message.exchange, message.ticks)
