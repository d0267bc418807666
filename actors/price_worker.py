"""The price worker actor: turns one batch of bytes into one batch of bars."""

from typing import Any

from pykka import ActorDeadError

from actors.messages import BarBatch, Batch
from actors.runtime import Address, GeventActor, MailboxSpec, Overflow
from marketflow.domain.feed import Decoder
from marketflow.domain.folding import fold_columns
from marketflow.ports import Meters


class PriceWorkerActor(GeventActor):
    """Decodes, validates and folds. What it fails on is one batch, which is part of the windows or not, never half."""

    mailbox = MailboxSpec(bound=4, overflow=Overflow.HOLD)

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
        """Turn a batch into bars for the aggregator and the cache."""
        decoded = self._decoder.decode(batch.data, batch.lines)
        folded = fold_columns(decoded.ticks, batch.order, batch.received_at, self._max_skew)
        bars = BarBatch(batch.mode, batch.exchange, folded.bars, folded.accepted, batch.received_at)
        if folded.accepted:
            self._aggregator.tell(bars)
        for reason, lines in decoded.rejected.items():
            self._meters.rejected(batch.exchange, reason, lines)
        if folded.bad_timestamps:
            self._meters.rejected(batch.exchange, "bad_timestamp", folded.bad_timestamps)
        if folded.accepted:
            self._tell_cache(bars)

    def _tell_cache(self, bars: BarBatch) -> None:
        """Let queries see what the windows have by now, even if this is the last that this actor does."""
        try:
            self._cache.tell(bars)
        except ActorDeadError:
            pass  # nobody can ask any more
        except BaseException:  # noqa: BLE001 - a kill, which it follows: the batch itself has not failed
            self._cache.tell(bars)
            self.stop()
