"""The cache actor: the newest prices and the recent series, in memory for every query and in Redis for every node."""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import gevent
import structlog
from gevent.event import Event

from actors.messages import BarBatch, Learn, Settle
from actors.runtime import Backoff, GeventActor, MailboxSpec, Overflow
from marketflow.domain.missing import Missing, pieces
from marketflow.domain.mode import MODES, Mode
from marketflow.domain.period import Span
from marketflow.domain.summary import Summary
from marketflow.domain.view import Flush, Latest, Newest, View, Waiting, gather, take
from marketflow.errors import Unavailable
from marketflow.ports import Clock, LatestPrice, PriceCache, Source

RETRY = Backoff(initial=0.1, maximum=2.0, jitter=0.5)
FRESH_MS = 60_000
"""For how long a price that is not refreshed stays in Redis, and after which one is called stale."""
FLUSH_PAIRS = 1_000
"""Pairs a pipeline: a few milliseconds of work at a time."""
REFILL_SLICES = 2_000
"""Slices a pipeline when Redis gets what it lacks: a few milliseconds of work at a time."""
MOST_MISSING = 100_000
"""Slices that Redis lacks and that are remembered one by one; beyond, it is filled again as a whole."""
TRIM_SECONDS = 10.0


class Summaries(NamedTuple):
    """The answer to a question about a span: by exchange what its ticks amount to, and where that comes from."""

    mode: Mode
    source: Source
    by_exchange: dict[str, Summary]
    since: int
    """Since when the series is complete (Unix ms): what was received before, only PostgreSQL may know."""
    young: bool
    """Whether that is since the start of this node: then the series has nothing of earlier runs."""


class CacheMemory:
    """What outlives a failure of the actor: the views, and what waits to go into them."""

    def __init__(self, mode: Mode, now: int) -> None:
        self.mode: Mode = mode
        self.began = now
        self.since: dict[Mode, int] = dict.fromkeys(MODES, now)
        """Since when the series are complete (Unix ms): the start of this node, unless Redis has more."""
        self.views: dict[Mode, View] = {mode: View() for mode in MODES}
        self.waiting: dict[Mode, Waiting] = {mode: {} for mode in MODES}
        self.fed: set[tuple[Mode, str]] = set()
        """The feeds that this node has read: what Redis lost of them, this node writes again."""
        self.known: set[tuple[Mode, str]] = set()
        """The feeds of which this node knows what Redis had before: what Redis has of others comes on top."""
        self.redis_up = False
        self.redis_error = "not connected yet"
        self.data_set: str | None = None
        """The data set in Redis that has all that this node knows, but for what is `missing`; None when none has."""
        self.missing: dict[Mode, Missing] = {mode: Missing() for mode in MODES}


class CacheActor(GeventActor):
    """Drains and flushes: everything that waits is one pipeline, and what arrives meanwhile is the next."""

    mailbox = MailboxSpec(bound=64, overflow=Overflow.HOLD)

    def __init__(
        self,
        memory: CacheMemory,
        redis: PriceCache,
        symbols: Sequence[str],
        exchanges: Sequence[str],
        retention: int,
        clock: Clock,
    ) -> None:
        super().__init__()
        self._memory = memory
        self._redis = redis
        self._symbols = symbols
        self._exchanges = exchanges
        self._retention = retention
        self._clock = clock
        self._work = Event()
        self._settling: list[Event] = []
        self._answered = Event()
        self._last_answer = 0.0
        self._log = structlog.get_logger("cache").bind(actor="cache")

    def on_start(self) -> None:
        """Read what Redis has, then flush and watch beside the mailbox."""
        if self._memory.data_set is None or any(missing.slices for missing in self._memory.missing.values()):
            self._memory.redis_up = False  # also when a failure of this actor came between a flush and Redis
        self._return()
        self._work.set()
        self.spawn(self._flush_for_ever)
        self.spawn(self._watch_for_ever)

    def on_stop(self) -> None:
        """Flush what still waits."""
        self._flush_waiting()

    def on_receive(self, message: BarBatch | Learn | Settle) -> None:
        """Add a batch to what waits for the next flush, or take over what another node has flushed."""
        if isinstance(message, Learn):
            self._memory.views[message.mode].learn(message.flush, self._clock.now())
            self._memory.known.update((message.mode, exchange) for exchange in message.flush.slices)
            return
        if isinstance(message, Settle):
            self._settling.append(message.settled)
        else:
            gather(self._memory.waiting[message.mode], message.exchange, message.bars)
            self._memory.fed.add((message.mode, message.exchange))
        self._work.set()

    # --- queries, called through a proxy ---

    def latest(self, symbol: str, exchange: str | None) -> LatestPrice | None:
        """Return the newest price of a symbol in the current mode, over all exchanges or of one."""
        newest = self._memory.views[self._memory.mode].newest(symbol)
        if exchange is not None:
            price = newest.get(exchange)
            return None if price is None else self._priced(symbol, exchange, price)
        if not newest:
            return None
        name = max(newest, key=newest.__getitem__)
        return self._priced(symbol, name, newest[name])

    def latest_all(self) -> tuple[Mode, list[LatestPrice]]:
        """Return the current mode and the newest price of every symbol and exchange."""
        view = self._memory.views[self._memory.mode]
        return self._memory.mode, [
            self._priced(symbol, exchange, price)
            for symbol in self._symbols
            for exchange, price in sorted(view.newest(symbol).items())
        ]

    def summaries(self, symbol: str, exchange: str | None, span: Span) -> Summaries:
        """Return what the ticks of a span (multiples of 100 ms, within the retention) amount to in the current mode."""
        memory = self._memory
        found = memory.views[memory.mode].summaries(symbol, exchange, span)
        since = memory.since[memory.mode]
        return Summaries(memory.mode, self._source(), found, since, young=since == memory.began)

    def mode(self) -> Mode:
        """Return the mode that queries see."""
        return self._memory.mode

    def set_mode(self, mode: Mode) -> None:
        """Let queries see another mode from now on."""
        self._memory.mode = mode

    def redis_status(self) -> tuple[bool, str]:
        """Tell whether Redis answers, and if not why."""
        return self._memory.redis_up, self._memory.redis_error

    def _priced(self, symbol: str, exchange: str, price: Newest) -> LatestPrice:
        now = self._clock.now()
        source = self._source() if now - price.refreshed < FRESH_MS else "memory"
        stale = now - price.timestamp > FRESH_MS
        return LatestPrice(symbol, exchange, price.price, price.timestamp, self._memory.mode, source, stale)

    def _source(self) -> Source:
        return "redis" if self._memory.redis_up else "memory"

    # --- the flush ---

    def _flush_for_ever(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            if self._answered.is_set():
                self._answered.clear()
                self._return()
            settling, self._settling = self._settling, []
            self._flush_waiting()
            for settled in settling:
                settled.set()

    def _flush_waiting(self) -> None:
        for mode in MODES:
            while waiting := take(self._memory.waiting[mode], FLUSH_PAIRS):
                self._flush(mode, waiting)

    def _flush(self, mode: Mode, waiting: Waiting) -> None:
        view = self._memory.views[mode]
        prepared = view.prepare(waiting, self._clock.now())
        written = False
        try:
            if self._memory.redis_up:
                self._redis.write(mode, prepared.flush)
                written = True
                self._answers()
        except Unavailable as error:
            self._away(error)
        finally:  # also when this greenlet is killed while it waits: nothing that was taken is lost
            view.apply(prepared)
            if not written:
                self._note_missing(mode, prepared.flush)

    def _note_missing(self, mode: Mode, flush: Flush) -> None:
        """Remember what Redis lacks, so that it need not be filled again as a whole."""
        if self._memory.data_set is None:
            return
        missing = self._memory.missing[mode]
        missing.note(flush.slices)
        if missing.slices > MOST_MISSING:
            self._memory.data_set = None
            missing.clear()

    def _answers(self) -> None:
        self._last_answer = self._clock.monotonic()

    def _away(self, error: Unavailable) -> None:
        self._memory.redis_up = False
        self._memory.redis_error = str(error)
        self._log.warning("redis is away; memory answers", reason=str(error))

    # --- Redis coming and going ---

    def _watch_for_ever(self) -> None:
        attempt = 0
        trimmed = self._clock.monotonic()
        while True:
            up = self._memory.redis_up
            attempt = 0 if up else attempt + 1
            gevent.sleep(1.0 if up else RETRY.delay(attempt, random.random()))  # noqa: S311  # jitter needs no secrecy
            try:
                if not self._memory.redis_up:
                    self._redis.ping()
                    self._answered.set()
                    self._work.set()
                elif self._clock.monotonic() - self._last_answer > 1000:
                    self._redis.ping()
                    self._answers()
            except Unavailable as error:
                if self._memory.redis_up:
                    self._away(error)
                self._memory.redis_error = str(error)
            if self._clock.monotonic() - trimmed > TRIM_SECONDS * 1000:
                trimmed = self._clock.monotonic()
                self._trim()

    def _trim(self) -> None:
        oldest = self._clock.now() - self._retention
        for mode, view in self._memory.views.items():
            for number, (_, series) in enumerate(view.series()):
                series.drop_before(oldest)
                if number % FLUSH_PAIRS == 0:
                    gevent.sleep(0)
            if self._memory.redis_up:
                self._redis.sweep(mode)

    def _return(self) -> None:
        """Write what Redis lacks, after reading what it has where that may be something else, and use it again."""
        memory = self._memory
        if memory.redis_up:
            return
        try:
            data_set = self._redis.data_set()
            if data_set == memory.data_set:
                slices = self._write_missing()
            else:
                memory.data_set = None
                self._read()
                slices = self._refill()
        except Unavailable as error:
            memory.redis_error = str(error)
            return
        memory.data_set = data_set
        for missing in memory.missing.values():
            missing.clear()
        self._answers()
        memory.redis_up = True
        memory.redis_error = ""
        self._log.info("redis is used", written_slices=slices)

    def _read(self) -> None:
        now = self._clock.now()
        for mode, view in self._memory.views.items():
            self._memory.since[mode] = self._redis.series_since(mode, self._memory.since[mode])
            latest = self._redis.read_latest(mode, self._symbols)
            view.learn(Flush(latest, {}), now)
            for exchange in self._exchanges:
                series = self._redis.read_series(mode, exchange, now - self._retention)
                feed = (mode, exchange)
                if feed in self._memory.fed - self._memory.known:
                    view.add(exchange, series)
                else:
                    view.learn(Flush({}, {exchange: series}), now)
                self._memory.known.add(feed)

    def _write_missing(self) -> int:
        """Write what failed to be written, in pieces that leave room for others; return the slices."""
        return sum(
            self._write(mode, missing.pieces(self._memory.views[mode], REFILL_SLICES))
            for mode, missing in self._memory.missing.items()
        )

    def _refill(self) -> int:
        """Write all that this node's feeds brought, in pieces that leave room for others; return the slices."""
        total = 0
        for mode, exchange in sorted(self._memory.fed):
            view = self._memory.views[mode]
            records = ((symbol, dict(series.items())) for symbol, series in view.series(exchange))
            total += self._write(mode, pieces(exchange, records, REFILL_SLICES))
        return total

    def _write(self, mode: Mode, slices: Iterable[tuple[str, Mapping[str, Mapping[int, bytes]]]]) -> int:
        """Write slices of an exchange, and the latest prices of their symbols; return how many slices."""
        now = self._clock.now()
        view = self._memory.views[mode]
        total = 0
        for exchange, piece in slices:
            latest = {
                symbol: {exchange: Latest(price.price, price.timestamp)}
                for symbol in piece
                if (price := view.newest(symbol).get(exchange)) and now - price.refreshed < FRESH_MS
            }
            self._redis.write(mode, Flush(latest, {exchange: piece}))
            total += sum(len(records) for records in piece.values())
        return total
