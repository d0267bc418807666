"""The book of windows that are too many for the memory: left to the journal, taken back, and what earlier runs left."""

import pytest

from marketflow.domain.bar import Bar, fold
from marketflow.domain.book import Book
from marketflow.domain.window import WindowKey

INTERVAL = 1_000
SYMBOL = "BTCUSDT"


def tick(start: int, price: float = 1.0) -> dict[str, dict[int, Bar]]:
    return {SYMBOL: {start: fold([price], [start], 1)}}


def key(start: int) -> WindowKey:
    return WindowKey("exchange1", SYMBOL, start)


@pytest.fixture
def book() -> Book:
    """Three windows of a tick each, in a book that knows the journal and the rows, both empty."""
    book = Book("exchange1", INTERVAL)
    book.take_up_journal({})
    book.take_up_rows({}, 0)
    for start in (1_000, 0, 2_000):
        book.add(tick(start))
    return book


def journal(book: Book) -> dict[WindowKey, bytes]:
    """Journal everything, and return what the journal has."""
    taken = book.take_to_journal()
    book.journalled(taken)
    return taken


def test_nothing_is_left_before_it_is_journalled(book: Book) -> None:
    book.leave_to_journal(3_000, 10)
    assert (book.waiting(), book.left_to_journal) == (3, 0)


def test_nothing_is_left_to_a_journal_that_is_not_known() -> None:
    book = Book("exchange1", INTERVAL)
    book.take_up_rows({}, 0)
    book.add(tick(0))
    journal(book)
    book.leave_to_journal(1_000, 10)
    assert (book.waiting(), book.left_to_journal) == (1, 0)


def test_the_oldest_are_left_and_no_more_than_asked(book: Book) -> None:
    journal(book)
    book.leave_to_journal(3_000, 1)
    assert list(book.due(None)) == [key(1_000), key(2_000)]
    assert book.left_to_journal == 1
    book.leave_to_journal(3_000, 0)
    assert book.left_to_journal == 1


def test_windows_that_end_later_stay(book: Book) -> None:
    journal(book)
    book.leave_to_journal(2_000, 10)
    assert list(book.due(None)) == [key(2_000)]
    assert book.left_to_journal == 2


def test_windows_that_are_stored_are_not_left(book: Book) -> None:
    journal(book)
    book.stored(book.due(1_000))
    book.leave_to_journal(3_000, 10)
    assert book.left_to_journal == 2
    assert book.settled(3_000) == [key(0)]


def test_what_was_left_comes_back_oldest_first_as_it_was(book: Book) -> None:
    before = book.due(None)
    journalled = journal(book)
    book.leave_to_journal(2_000, 10)
    assert book.take_back(journalled, 1) == 0
    assert (list(book.due(None)), book.left_to_journal) == ([key(0), key(2_000)], 1)
    assert book.take_back(journalled, 10) == 0
    assert (book.due(None), book.left_to_journal) == (before, 0)
    assert book.take_back(journalled, 10) == 0
    assert book.due(None) == before


def test_what_is_back_is_not_taken_a_second_time(book: Book) -> None:
    before = book.due(None)
    journalled = journal(book)
    book.leave_to_journal(2_000, 10)
    for _ in range(2):
        book.take_back(journalled, 1)
    assert (book.due(None), book.left_to_journal) == (before, 0)


def test_the_oldest_comes_back_first_whatever_its_symbol(book: Book) -> None:
    book.add({"ADAUSDT": {1_000: fold([1.0], [1_000], 1)}})
    journalled = journal(book)
    book.leave_to_journal(2_000, 10)
    book.take_back(journalled, 1)
    assert list(book.due(2_000)) == [key(0)]


def test_what_cannot_be_read_is_counted_and_left_out(book: Book) -> None:
    journalled = journal(book)
    book.leave_to_journal(2_000, 10)
    assert book.take_back(journalled | {key(0): b"\xc1"}, 10) == 1
    assert list(book.due(None)) == [key(1_000), key(2_000)]


def test_a_tick_of_a_window_that_was_left_is_journalled_only_with_what_was_left(book: Book) -> None:
    journalled = journal(book)
    book.leave_to_journal(1_000, 10)
    book.add(tick(0))
    assert book.take_to_journal() == {}
    assert not book.is_journalled()
    book.take_back(journalled, 10)
    assert list(book.take_to_journal()) == [key(0)]
    assert book.due(1_000)[key(0)].count == 2


def test_what_earlier_runs_left_is_told_apart_from_what_came_since(book: Book) -> None:
    journalled = journal(book)
    after = Book("exchange1", INTERVAL)
    after.take_up_journal(journalled)
    after.take_up_rows({}, 0)
    after.add(tick(1_000, 5.0))
    after.add(tick(3_000))
    assert after.left("ETHUSDT", 0) is None
    assert after.left(SYMBOL, 3_000) is None
    left = after.left(SYMBOL, 1_000)
    assert left is not None
    assert (left.count, left.high) == (2, 1.0)
    assert sorted(bar.count for bar in after.bars(SYMBOL)) == [1, 1, 1, 2]
    assert list(after.bars("ETHUSDT")) == []
