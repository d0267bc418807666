"""The price worker actor: turns one batch of bytes into one batch of bars."""

from typing import Any

from actors.messages import BarBatch, Batch
from actors.runtime import Address, GeventActor, MailboxSpec, Overflow
from marketflow.domain.feed import Decoder
from marketflow.domain.folding import fold_columns
from marketflow.ports import Meters


class PriceWorkerActor(GeventActor):
    """Decodes, validates and folds; what fails on its way is one batch, counted as failed."""

    mailbox = MailboxSpec(bound=16, overflow=Overflow.HOLD)

    def __init__(
        self, decoder: Decoder, max_skew: int, cache: Address[Any], aggregator: Address[Any], meters: Meters
    ) -> None:
        super().__init__()
        self._decoder = decoder
        self._max_skew = max_skew
        self._cache = cache
        self._aggregator = aggregator
        self._meters = meters

    def on_receive(self, batch: Batch) -> None:
        """Turn a batch into bars for the cache and the aggregator."""
        try:
            decoded = self._decoder.decode(batch.data)
            folded = fold_columns(decoded.ticks, batch.order, batch.received_at, self._max_skew)
            if folded.accepted:
                bars = BarBatch(batch.mode, batch.exchange, folded.bars, folded.accepted, batch.received_at)
                self._cache.tell(bars)
                self._aggregator.tell(bars)
        except BaseException:
            self._meters.failed(batch.exchange, batch.lines)
            raise
        for reason, lines in decoded.rejected.items():
            self._meters.rejected(batch.exchange, reason, lines)
        if folded.bad_timestamps:
            self._meters.rejected(batch.exchange, "bad_timestamp", folded.bad_timestamps)
