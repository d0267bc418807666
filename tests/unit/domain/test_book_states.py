"""The book of windows: how journal and rows are joined, and what is handed out, told and settled."""

import pytest

from marketflow.domain.bar import Bar, fold
from marketflow.domain.book import Book
from marketflow.domain.window import WindowKey

INTERVAL = 1_000
SYMBOL = "BTCUSDT"


def bar(start: int, *prices: float) -> Bar:
    return fold(list(prices), [start] * len(prices), 1)


def key(start: int) -> WindowKey:
    return WindowKey("exchange1", SYMBOL, start)


def journalled(*prices: float, rows_known: bool) -> dict[WindowKey, bytes]:
    """Return what an earlier run journalled of the window at 0."""
    book = Book("exchange1", INTERVAL)
    book.take_up_journal({})
    if rows_known:
        book.take_up_rows({}, 0)
    book.add({SYMBOL: {0: bar(0, *prices)}})
    return book.take_to_journal()


@pytest.fixture
def book() -> Book:
    """Windows of one tick each at 0, 1000 and 2000, in a book that knows the journal and the rows, both empty."""
    book = Book("exchange1", INTERVAL)
    book.take_up_journal({})
    book.take_up_rows({}, 0)
    for start in (0, 1_000, 2_000):
        book.add({SYMBOL: {start: bar(start, 1.0 + start)}})
    return book


def test_a_state_that_was_begun_without_its_row_is_added_to_it() -> None:
    book = Book("exchange1", INTERVAL)
    book.take_up_journal(journalled(1.0, 2.0, rows_known=False))
    book.take_up_rows({key(0): bar(0, 5.0, 6.0, 7.0)}, 0)
    book.journalled(book.take_to_journal())
    assert book.due(None)[key(0)].count == 5


def test_a_state_that_includes_its_row_stands_for_itself() -> None:
    book = Book("exchange1", INTERVAL)
    book.take_up_journal(journalled(1.0, 2.0, rows_known=True))
    book.take_up_rows({key(0): bar(0, 1.0)}, 0)
    assert book.due(None)[key(0)].count == 2


def test_a_row_that_is_newer_than_the_journal_is_right() -> None:
    book = Book("exchange1", INTERVAL)
    book.take_up_journal(journalled(1.0, rows_known=True))
    book.take_up_rows({key(0): bar(0, 1.0, 2.0, 3.0)}, 0)
    book.add({SYMBOL: {0: bar(0, 4.0)}})
    assert book.due(None)[key(0)].count == 4


def test_what_could_not_be_journalled_is_taken_again(book: Book) -> None:
    taken = book.take_to_journal()
    assert book.take_to_journal() == {}
    book.untake(taken)
    assert not book.is_journalled()
    assert book.take_to_journal() == taken


def test_a_summary_is_of_the_windows_that_start_in_the_span(book: Book) -> None:
    summary, starts = book.summary(SYMBOL, 0, 2_000)
    assert summary is not None
    assert (summary.low, summary.high, summary.count, starts) == (1.0, 1_001.0, 2, [0, 1_000])
    assert book.summary("ETHUSDT", 0, 2_000) == (None, [])
    assert book.summary(SYMBOL, 3_000, 9_000) == (None, [])


def test_what_is_stored_and_over_is_settled(book: Book) -> None:
    book.stored(book.due(2_000))
    assert book.settled(2_000) == [key(0), key(1_000)]
    assert book.settled(2_000) == []
    assert list(book.due(None)) == [key(2_000)]


def test_the_row_of_a_window_that_was_settled_is_looked_up_again(book: Book) -> None:
    book.stored(book.due(2_000))
    book.settled(2_000)
    book.add({"ETHUSDT": {2_000: bar(2_000, 1.0)}})
    assert book.rowless() is None
    book.add({"ETHUSDT": {1_000: bar(1_000, 1.0)}})
    assert book.rowless() == 1_000
