"""The view: whatever the order of batches and questions, answers are those of the ticks."""

from hypothesis import given, settings
from hypothesis import strategies as st

from marketflow.domain.feed import Columns
from marketflow.domain.folding import fold_columns
from marketflow.domain.period import Span
from marketflow.domain.view import Flush, Latest, Newest, Prepared, View, Waiting, gather, take

NOW = 1_763_827_200_000
Tick = tuple[str, str, float, int]  # exchange, symbol, price, time

ticks = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from(["X", "Y"]),
    st.integers(1, 50).map(lambda quarters: quarters / 4),  # sums of quarters are exact
    st.integers(NOW - 15_000, NOW + 400),
)
spans = st.tuples(st.integers(0, 160), st.integers(0, 160)).map(
    lambda ends: Span(NOW - 15_000 + min(ends) * 100, NOW - 15_000 + max(ends) * 100)
)
batches = st.lists(st.lists(ticks, min_size=1, max_size=6), max_size=8)


def change_of(view: View, batch: list[Tick], order: int) -> Prepared:
    waiting: Waiting = {}
    for exchange in {tick[0] for tick in batch}:
        columns: Columns = {}
        for name, symbol, price, time in batch:
            if name == exchange:
                prices, times = columns.setdefault(symbol, ([], []))
                prices.append(price)
                times.append(time)
        gather(waiting, exchange, fold_columns(columns, order, NOW, 60_000).bars)
    return view.prepare(waiting, NOW)


def expected(received: list[Tick], symbol: str, exchange: str | None, span: Span) -> dict[str, tuple[float, ...]]:
    found: dict[str, list[tuple[float, int]]] = {}
    for name, pair, price, time in received:
        if pair == symbol and exchange in (None, name) and span.start <= time < span.end:
            found.setdefault(name, []).append((price, time))
    return {
        name: (
            max(price for price, _ in seen),
            min(time for price, time in seen if price == max(price for price, _ in seen)),
            min(price for price, _ in seen),
            min(time for price, time in seen if price == min(price for price, _ in seen)),
            sum(price for price, _ in seen),
            len(seen),
        )
        for name, seen in found.items()
    }


@settings(max_examples=150)
@given(batches, st.lists(spans, min_size=1, max_size=4), st.sampled_from([None, "a", "b"]))
def test_answers_are_those_of_the_ticks_after_every_batch(
    sent: list[list[Tick]], asked: list[Span], exchange: str | None
) -> None:
    view = View()
    received: list[Tick] = []
    for order, batch in enumerate(sent):
        view.apply(change_of(view, batch, order))
        received += batch
        for span in [*asked, *asked]:  # the second time kept answers are given
            assert view.summaries("X", exchange, span) == expected(received, "X", exchange, span)


@given(batches)
def test_the_newest_tick_is_the_last_received_of_the_greatest_time(sent: list[list[Tick]]) -> None:
    view = View()
    newest: dict[tuple[str, str], tuple[int, float]] = {}
    for order, batch in enumerate(sent):
        view.apply(change_of(view, batch, order))
        for exchange, symbol, price, time in batch:
            if time >= newest.get((exchange, symbol), (0, 0.0))[0]:
                newest[exchange, symbol] = (time, price)
    for (exchange, symbol), (time, price) in newest.items():
        known = view.newest(symbol)[exchange]
        assert (known.timestamp, known.price) == (time, price)


@given(batches, batches)
def test_a_second_view_learns_states_in_any_order_and_twice(sent: list[list[Tick]], more: list[list[Tick]]) -> None:
    first, second = View(), View()
    flushes = []
    for order, batch in enumerate([*sent, *more]):
        prepared = change_of(first, batch, order)
        first.apply(prepared)
        flushes.append(prepared.flush)
    for flush in [*reversed(flushes), *flushes]:
        second.learn(flush, NOW)
    everything = Span(NOW - 15_000, NOW + 500)
    for symbol in ("X", "Y"):
        assert second.summaries(symbol, None, everything) == first.summaries(symbol, None, everything)
        assert {exchange: newest.timestamp for exchange, newest in second.newest(symbol).items()} == {
            exchange: newest.timestamp for exchange, newest in first.newest(symbol).items()
        }


@given(batches, batches)
def test_what_an_earlier_run_left_is_added(before: list[list[Tick]], after: list[list[Tick]]) -> None:
    earlier, view, received = View(), View(), []
    for order, batch in enumerate(before):
        earlier.apply(change_of(earlier, batch, order))
        received += batch
    for order, batch in enumerate(after):
        view.apply(change_of(view, batch, order))
        received += batch
    everything = Span(NOW - 15_000, NOW + 500)
    view.summaries("X", None, everything)
    for exchange in ("a", "b"):
        view.add(exchange, {symbol: dict(series.items()) for symbol, series in earlier.series(exchange)})
    assert view.summaries("X", None, everything) == expected(received, "X", None, everything)


@given(st.lists(ticks, max_size=20), st.integers(1, 5))
def test_what_waits_is_taken_in_parts_none_twice(sent: list[Tick], pairs: int) -> None:
    waiting: Waiting = {}
    for order, (exchange, symbol, price, time) in enumerate(sent):
        batch: Columns = {symbol: ([price], [time])}
        gather(waiting, exchange, fold_columns(batch, order, NOW, 60_000).bars)
    count = 0
    while taken := take(waiting, pairs):
        assert sum(len(symbols) for symbols in taken.values()) <= pairs
        count += sum(bar.count for symbols in taken.values() for bars in symbols.values() for bar in bars.values())
    assert count == len(sent)


def test_what_is_learned_counts_in_answers_that_were_given_before() -> None:
    here, there = View(), View()
    span = Span(NOW - 1_000, NOW)
    for order, price in enumerate((1.0, 2.0)):
        prepared = change_of(there, [("a", "X", price, NOW - 500)], order)
        there.apply(prepared)
        here.learn(prepared.flush, NOW)
        assert here.summaries("X", None, span)["a"].count == order + 1


def test_a_price_that_is_learned_is_the_newest_unless_it_is_older() -> None:
    view = View()
    for price, time in ((1.0, NOW), (2.0, NOW), (3.0, NOW - 1)):
        view.learn(Flush({"X": {"a": Latest(price, time)}}, {}), NOW + 5)
    assert view.newest("X") == {"a": Newest(NOW, 0, 2.0, NOW + 5)}


def test_a_flush_holds_the_newest_price_and_refreshes_it() -> None:
    view = View()
    prepared = change_of(view, [("a", "X", 2.0, NOW), ("a", "X", 1.0, NOW - 300)], 7)
    assert prepared.flush.latest == {"X": {"a": Latest(2.0, NOW)}}
    view.apply(prepared)
    view.apply(change_of(view, [("a", "X", 3.0, NOW - 100)], 8))
    assert view.newest("X") == {"a": Newest(NOW, 7, 2.0, NOW)}


def test_gathering_leaves_the_batch_as_it_was() -> None:
    waiting: Waiting = {}
    batch = fold_columns({"X": ([1.0], [NOW])}, 1, NOW, 60_000).bars
    gather(waiting, "a", batch)
    gather(waiting, "a", fold_columns({"X": ([2.0, 3.0], [NOW, NOW + 100])}, 2, NOW, 60_000).bars)
    assert [bar.count for bar in batch["X"].values()] == [1]
    assert {start: bar.count for start, bar in waiting["a"]["X"].items()} == {NOW: 2, NOW + 100: 1}
