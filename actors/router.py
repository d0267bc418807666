"""The router actor: spreads batches over the price workers, each to the one with the least waiting."""

from collections.abc import Sequence
from typing import Any

from actors.messages import Batch
from actors.runtime import Address, GeventActor, MailboxSpec, Overflow


class RouterActor(GeventActor):
    """Balances by mailbox depth. When every worker is full it waits, and so, in turn, do the feeds."""

    mailbox = MailboxSpec(bound=4, overflow=Overflow.HOLD)

    def __init__(self, workers: Sequence[Address[Any]]) -> None:
        super().__init__()
        self._workers = tuple(workers)

    def on_receive(self, batch: Batch) -> None:
        """Pass a batch on."""
        min(self._workers, key=_depth).tell(batch)


def _depth(worker: Address[Any]) -> int:
    return worker.depth
