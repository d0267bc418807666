"""The aggregator actor: the windows of every feed, journalled in Redis while open, stored in PostgreSQL once closed."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import gevent
import structlog
from gevent.event import Event

from actors.messages import BarBatch
from actors.runtime import Backoff, GeventActor, MailboxSpec, Overflow
from marketflow.domain.bar import Bar
from marketflow.domain.book import Book, first_start
from marketflow.domain.mode import MODES, Mode
from marketflow.domain.summary import Summary
from marketflow.domain.view import Latest
from marketflow.domain.window import StoredWindow, WindowKey
from marketflow.errors import Unavailable
from marketflow.ports import Clock, Meters, WindowJournal, WindowStore

RETRY = Backoff(initial=0.2, maximum=5.0, jitter=0.5)
JOURNAL_RETRY = Backoff(initial=0.1, maximum=0.25, jitter=0.5)
"""Memory alone has what the journal lacks: it is written as soon as Redis is back."""
JOURNAL_SECONDS = 0.05
"""Pause between two writes of the journal: what a kill may cost, besides what is on its way."""
JOURNAL_SECONDS_A_WINDOW = 20e-6
"""Longer where very many windows are open: a write takes a tenth of it, so the journal never takes most of the time."""
STORE_SECONDS = 0.1
"""How often it is looked whether a window is due."""
AMEND_SECONDS = 1.0
"""How often rows are amended by ticks that came after they were stored."""
STORE_ROWS = 5_000
"""Rows a transaction."""
LEASE_MS = 3_000
"""A lease that was not renewed for so long may have lapsed: a node that stood still writes nothing of that feed before
it has asked again, since another one may have gone on with its windows."""
MOST_WAITING = 200_000
"""Windows that may wait in memory to be stored, the open ones among them. More are left to the journal; without it,
feeds are held. So many take some hundred megabytes: three windows each of 5,000 symbols on a dozen exchanges."""


class AggregatorMemory:
    """What outlives a failure of the actor: the books of all feeds."""

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.leased: Mapping[str, int] = {}
        """When each feed's lease was last known to be ours (monotonic ms); feeds that are not in it need none."""
        self.books: dict[tuple[Mode, str], Book] = {}
        self.room = Event()
        """Set while there is room for more windows; feeds are read no further when it is not."""
        self.room.set()
        self.store_up: bool | None = None
        """Whether PostgreSQL answered last; None before it was asked."""
        self.store_error = "not connected yet"

    def book(self, mode: Mode, exchange: str) -> Book:
        """Return the book of a feed, a new one where there is none."""
        book = self.books.get((mode, exchange))
        if book is None:
            book = self.books[mode, exchange] = Book(exchange, self.interval)
        return book


class AggregatorActor(GeventActor):
    """Closes windows by the time of their exchange's ticks; what came late amends its row."""

    mailbox = MailboxSpec(bound=64, overflow=Overflow.HOLD)

    def __init__(
        self,
        memory: AggregatorMemory,
        journal: WindowJournal,
        store: WindowStore,
        lateness: int,
        max_skew: int,
        clock: Clock,
        meters: Meters,
    ) -> None:
        super().__init__()
        self._memory = memory
        self._journal = journal
        self._store = store
        self._lateness = lateness
        self._max_skew = max_skew
        self._clock = clock
        self._meters = meters
        self._changed = Event()
        self._stopping = False
        self._journal_up = True
        self._log = structlog.get_logger("aggregator").bind(actor="aggregator")

    def on_start(self) -> None:
        """Journal and store beside the mailbox: a slow database holds nobody."""
        self._changed.set()
        self.spawn(self._journal_for_ever)
        self.spawn(self._store_for_ever)

    def on_receive(self, batch: BarBatch) -> None:
        """Add a batch of bars to its windows."""
        book = self._memory.book(batch.mode, batch.exchange)
        newest = book.add(batch.bars)
        self._meters.aggregated(batch.exchange, batch.ticks, batch.received_at)
        book.clock.saw(newest, self._clock.monotonic())
        self._changed.set()

    # --- called through a proxy ---

    def adopt(self, exchange: str, *, afresh: bool) -> None:
        """Take up the windows that earlier runs, or a node that is gone, left of an exchange.

        `afresh`: another node may have gone on with windows that this one knew; what is journalled is right then.
        """
        for mode in MODES:
            book = self._memory.book(mode, exchange)
            if afresh and book.is_journalled():
                del self._memory.books[mode, exchange]
                self._memory.book(mode, exchange)
        self._changed.set()

    def abandon(self, mode: Mode, exchange: str) -> None:
        """Leave the windows of a feed to another node, which has taken them up from the journal."""
        book = self._memory.books.pop((mode, exchange), None)
        if book is not None and not book.is_journalled():
            self._log.error("ticks lost: this node lost its lease before they were journalled", exchange=exchange)

    def waiting(self, mode: Mode, symbol: str, start: int, end: int) -> dict[str, tuple[Summary, list[int]]]:
        """Return, by exchange, what the windows in memory that start in [start, end) amount to, and their starts."""
        found: dict[str, tuple[Summary, list[int]]] = {}
        for (book_mode, exchange), book in self._memory.books.items():
            if book_mode == mode:
                summary, starts = book.summary(symbol, start, end)
                if summary is not None:
                    found[exchange] = (summary, starts)
        return found

    def left(self, mode: Mode, symbol: str, start: int) -> dict[str, Summary]:
        """Return, by exchange, what earlier runs left of the windows in memory that start at or after `start`."""
        found: dict[str, Summary] = {}
        for (book_mode, exchange), book in self._memory.books.items():
            if book_mode == mode:
                summary = book.left(symbol, start)
                if summary is not None:
                    found[exchange] = summary
        return found

    def newest(self, mode: Mode, symbol: str) -> dict[str, Latest]:
        """Return, by exchange, the close of the newest window in memory."""
        found: dict[str, Latest] = {}
        for (book_mode, exchange), book in self._memory.books.items():
            if book_mode == mode:
                for bar in book.bars(symbol):
                    if exchange not in found or bar.close_time > found[exchange].timestamp:
                        found[exchange] = Latest(bar.close, bar.close_time)
        return found

    def store_status(self) -> tuple[bool, str, int]:
        """Tell whether PostgreSQL answers, if not why, and how many windows are not stored as they are."""
        memory = self._memory
        return bool(memory.store_up), memory.store_error, sum(book.waiting() for book in memory.books.values())

    def caught_up(self) -> bool:
        """Tell whether it is known what earlier runs left of this node's feeds; rows, as far as PostgreSQL answers."""
        return all(
            book.journal_known and (book.rows_known or self._memory.store_up is False)
            for book in self._memory.books.values()
        )

    def on_stop(self) -> None:
        """Journal and store everything, the open windows too."""
        self._stopping = True  # no lease is renewed any more
        try:
            self._journal_once()
        except Unavailable as error:
            self._log.warning("windows are not journalled", reason=str(error))
        try:
            self._store_everything()
        except Unavailable as error:
            self._log.warning("windows are not stored", reason=str(error), windows=self.store_status()[2])

    # --- the journal ---

    def _journal_for_ever(self) -> None:
        attempt = 0
        while True:
            self._changed.wait()
            self._changed.clear()
            try:
                windows = self._journal_once()
                attempt = 0
                gevent.sleep(JOURNAL_SECONDS + windows * JOURNAL_SECONDS_A_WINDOW)
            except Unavailable as error:
                self._changed.set()
                if attempt == 0:
                    self._log.warning("windows are not journalled; memory keeps them", reason=str(error))
                attempt += 1
                gevent.sleep(JOURNAL_RETRY.delay(attempt, random.random()))  # noqa: S311  # jitter needs no secrecy

    def _journal_once(self) -> int:
        """Write what changed; return the number of windows."""
        try:
            written = self._write_journal()
        except Unavailable:
            self._journal_up = False
            raise
        self._journal_up = True
        return written

    def _write_journal(self) -> int:
        written = 0
        for mode, exchange, book in self._books():
            if not book.journal_known:
                unreadable = book.take_up_journal(self._journal.load(mode, exchange))
                if unreadable:
                    self._log.error(
                        "the journal has windows that cannot be read", exchange=exchange, windows=unreadable
                    )
            windows = book.take_to_journal()
            if windows:
                try:
                    self._journal.save(mode, windows)
                except BaseException:
                    book.untake(windows)
                    raise
                book.journalled(windows)
                written += len(windows)
        return written

    def _books(self) -> list[tuple[Mode, str, Book]]:
        """Return the books that are certainly this node's to write."""
        lapsed = self._clock.monotonic() - LEASE_MS
        return [
            (mode, exchange, book)
            for (mode, exchange), book in self._memory.books.items()
            if self._stopping or self._memory.leased.get(exchange, lapsed) >= lapsed
        ]

    # --- the store ---

    def _store_for_ever(self) -> None:
        attempt = 0
        amended = self._clock.monotonic()
        while True:
            try:
                amend = self._clock.monotonic() - amended >= AMEND_SECONDS * 1000
                if amend:
                    amended = self._clock.monotonic()
                self._store_closed(amend=amend)
                self._take_back()
                self._bound_memory()
                if not self._memory.store_up:
                    self._store.ping()
                    self._memory.store_up, self._memory.store_error = True, ""
                    self._log.info("postgresql is used")
                attempt = 0
                gevent.sleep(STORE_SECONDS)
            except Unavailable as error:
                if self._memory.store_up or attempt == 0:
                    self._log.warning("postgresql is away; windows wait", reason=str(error))
                self._memory.store_up, self._memory.store_error = False, str(error)
                self._bound_memory()
                attempt += 1
                gevent.sleep(RETRY.delay(attempt, random.random()))  # noqa: S311  # jitter needs no secrecy

    def _bound_memory(self) -> None:
        """Leave to the journal what is too much for the memory, and hold the feeds when that is not possible."""
        books = self._memory.books.values()
        excess = sum(book.waiting() for book in books) - MOST_WAITING
        if excess > 0:
            before = self._closed_before(self._clock.now())
            for book in books:
                book.leave_to_journal(before, most=excess // len(books) + 1)
            excess = sum(book.waiting() for book in books) - MOST_WAITING
        if excess > MOST_WAITING // 10:
            if self._memory.room.is_set():
                self._log.error("too many windows wait and cannot be journalled; feeds are held")
            self._memory.room.clear()
        else:
            self._memory.room.set()
        waiting: Counter[str] = Counter()
        for (_, exchange), book in self._memory.books.items():
            waiting[exchange] += book.waiting() + book.left_to_journal
        for exchange, windows in waiting.items():
            self._meters.waiting(exchange, windows)

    def _take_back(self) -> None:
        """Take up again what was left to the journal, as much as there is room for."""
        for mode, exchange, book in self._books():
            if book.left_to_journal and book.waiting() < MOST_WAITING // 4:
                book.take_back(self._journal.load(mode, exchange), MOST_WAITING // 2)

    def _closed_before(self, now: int) -> int:
        """Return the time before which windows end that nothing may fall into any more (Unix ms)."""
        return first_start(now, self._memory.interval, self._max_skew) - self._max_skew

    def _store_closed(self, *, amend: bool) -> None:
        for mode, exchange, book in self._books():
            self._look_up_rows(mode, exchange, book)
            now = self._clock.now()
            end = book.clock.time(self._clock.monotonic(), now) - self._lateness
            self._store_windows(mode, exchange, book, book.due(end, amended=amend, journal_up=self._journal_up))
            settled = book.settled(self._closed_before(now))
            if settled:
                self._forget(mode, settled)

    def _store_everything(self) -> None:
        for mode, exchange, book in self._books():
            self._look_up_rows(mode, exchange, book)
        # A window whose row was unknown so far is journalled with it before it is stored.
        try:
            self._journal_once()
        except Unavailable as error:
            self._log.warning("windows are not journalled", reason=str(error))
        for mode, exchange, book in self._books():
            self._store_windows(mode, exchange, book, book.due(None, journal_up=self._journal_up))

    def _look_up_rows(self, mode: Mode, exchange: str, book: Book) -> None:
        """Take up the rows of windows that are not known yet: at first all recent ones, later those of odd ticks."""
        rowless = book.rowless()
        if book.rows_known and rowless is None:
            return
        since = rowless
        if not book.rows_known:
            recent = first_start(self._clock.now(), self._memory.interval, 2 * self._max_skew)
            since = recent if rowless is None else min(recent, rowless)
        if since is not None:
            book.take_up_rows({row.key: row.bar for row in self._store.load(mode, exchange, since)}, since)
            self._changed.set()  # what is whole now must be journalled before it is stored

    def _store_windows(self, mode: Mode, exchange: str, book: Book, windows: Mapping[WindowKey, Bar]) -> None:
        if not windows:
            return
        due = list(windows.items())
        for at in range(0, len(due), STORE_ROWS):
            piece = due[at : at + STORE_ROWS]
            self._store.store([StoredWindow(mode, key, bar) for key, bar in piece])
            book.stored(dict(piece))
            self._meters.stored(exchange, len(piece))
        self._log.info(
            "windows stored",
            mode=mode,
            exchange=exchange,
            windows=len(windows),
            ticks=sum(bar.count for bar in windows.values()),
        )

    def _forget(self, mode: Mode, keys: Sequence[WindowKey]) -> None:
        try:
            self._journal.forget(mode, keys)
        except Unavailable as error:
            self._log.info("the journal keeps windows that are stored", reason=str(error), windows=len(keys))
