"""The book of windows: killed at any point, with Redis and PostgreSQL away in any order, it counts no tick twice."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from marketflow.domain.bar import Bar, fold
from marketflow.domain.book import Book, first_start
from marketflow.domain.window import WindowKey

INTERVAL = 1_000
STARTS = st.sampled_from([0, 1_000, 2_000])
SYMBOL = "BTCUSDT"


def tick(start: int, order: int) -> dict[str, dict[int, Bar]]:
    return {SYMBOL: {start: fold([1.0], [start + order % 100], order)}}


class BookMachine(RuleBasedStateMachine):
    """One book after another on the same journal and the same table, as their actor uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.journal: dict[WindowKey, bytes] = {}
        self.table: dict[WindowKey, Bar] = {}
        self.received: dict[WindowKey, int] = {}
        self.safe: dict[WindowKey, int] = {}
        self.order = 0
        self.book = Book("exchange1", INTERVAL)

    @rule(start=STARTS)
    def receive(self, start: int) -> None:
        self.order += 1
        self.book.add(tick(start, self.order))
        key = WindowKey("exchange1", SYMBOL, start)
        self.received[key] = self.received.get(key, 0) + 1

    @rule()
    def journal_fails(self) -> None:
        self.load_journal()
        self.book.untake(self.book.take_to_journal())

    @rule()
    def write_journal(self) -> None:
        self.load_journal()
        taken = self.book.take_to_journal()
        self.journal.update(taken)
        self.book.journalled(taken)
        self.safe.update({key: self.received[key] for key in taken})

    @rule()
    def killed_while_the_journal_was_written(self) -> None:
        self.load_journal()
        taken = self.book.take_to_journal()
        self.write_rows()  # the store does not wait for the journal
        self.journal.update(taken)
        self.safe.update({key: self.received[key] for key in taken})
        self.kill()

    @rule()
    def write_rows(self) -> None:
        self.look_up_rows()
        self.store(self.book.due(None))

    @rule(time=st.integers(0, 3_500))
    def write_closed(self, time: int) -> None:
        self.look_up_rows()
        due = self.book.due(time)
        assert all(key.start + INTERVAL <= time for key in due)
        self.store(due)

    @rule()
    def forget_what_is_settled(self) -> None:
        for key in self.book.settled(1_000):
            assert key.start == 0
            assert self.table[key].count == self.received[key]
            self.journal.pop(key, None)

    @rule()
    def look_up_rows(self) -> None:
        rowless = self.book.rowless()
        if not self.book.rows_known or rowless is not None:
            since = 0 if rowless is None or not self.book.rows_known else rowless
            self.book.take_up_rows({key: bar for key, bar in self.table.items() if key.start >= since}, since)

    @rule()
    def load_journal(self) -> None:
        if not self.book.journal_known:
            self.book.take_up_journal(self.journal)

    @rule()
    def kill(self) -> None:
        self.received = dict(self.safe)
        self.book = Book("exchange1", INTERVAL)

    @precondition(lambda self: self.received)
    @rule()
    def all_is_well_again(self) -> None:
        self.load_journal()
        self.look_up_rows()
        self.write_journal()
        self.write_rows()
        assert {key: bar.count for key, bar in self.table.items()} == self.received
        assert self.book.waiting() == 0
        assert self.book.is_journalled()
        for key, count in self.received.items():
            summary, starts = self.book.summary(SYMBOL, key.start, key.start + INTERVAL)
            if starts:  # it is not settled
                assert summary is not None
                assert summary.count == count

    def store(self, due: dict[WindowKey, Bar]) -> None:
        for key, bar in due.items():
            known = self.table.get(key)
            if known is None or bar.count > known.count:
                self.table[key] = bar
            self.safe[key] = self.received[key]
        self.book.stored(due)

    def teardown(self) -> None:
        if self.received:
            self.all_is_well_again()


TestBook = BookMachine.TestCase
TestBook.settings = settings(stateful_step_count=25, deadline=None)


def test_a_state_that_was_journalled_without_its_row_is_not_stored_before_it_is_journalled_with_it() -> None:
    book = Book("exchange1", INTERVAL)
    book.take_up_journal({})
    book.add(tick(0, 1))
    book.journalled(book.take_to_journal())
    book.take_up_rows({}, 0)
    assert book.due(None) == {}
    assert [bar.count for bar in book.due(None, journal_up=False).values()] == [1]
    book.journalled(book.take_to_journal())
    assert [bar.count for bar in book.due(None).values()] == [1]


def test_rows_that_were_amended_may_wait() -> None:
    book = Book("exchange1", INTERVAL)
    book.take_up_rows({}, 0)
    book.add(tick(0, 1))
    book.stored(book.due(1_000))
    book.add(tick(0, 2))
    assert book.due(1_000, amended=False) == {}
    assert [bar.count for bar in book.due(1_000).values()] == [2]


def test_the_first_window_that_a_tick_may_fall_into_goes_by_the_skew() -> None:
    assert first_start(125_000, 60_000, 60_000) == 60_000
    assert first_start(120_000, 60_000, 60_000) == 60_000
