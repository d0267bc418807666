"""The window store on a real PostgreSQL: what is stored, and what is answered from it."""

import math
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from marketflow.adapters.postgres import PostgresStore
from marketflow.domain.bar import Bar, fold, merge
from marketflow.domain.mode import LIVE, MODES, TEST, Mode
from marketflow.domain.summary import Summary, of_bar
from marketflow.domain.view import Latest
from marketflow.domain.window import StoredWindow, WindowKey
from tests.support.postgres_server import VERSIONS, PostgresServer, running_server

MINUTE = 60_000
NOON = 1_763_812_800_000  # 2025-11-22 12:00 UTC
DECEMBER = 1_764_547_200_000  # 2025-12-01 00:00 UTC


@pytest.fixture(scope="module", params=VERSIONS)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with running_server(request.param) as running:
        yield running


@pytest.fixture(scope="module")
def store(server: PostgresServer) -> Iterator[PostgresStore]:
    opened = PostgresStore(server.dsn)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _empty(server: PostgresServer, store: PostgresStore) -> None:
    server.execute("TRUNCATE aggregated_prices")


def window(
    start: int, *prices: float, mode: Mode = LIVE, exchange: str = "exchange1", symbol: str = "BTCUSDT"
) -> StoredWindow:
    """A window with ticks a millisecond apart."""
    bar = fold(list(prices), [start + offset for offset in range(len(prices))], 7)
    return StoredWindow(mode, WindowKey(exchange, symbol, start), bar)


def without_order(stored: StoredWindow) -> StoredWindow:
    """As it is loaded: the order of receipt is not stored."""
    mode, key, bar = stored
    fields = (bar.open, bar.open_time, 0, bar.high, bar.high_time, bar.low, bar.low_time, bar.close, bar.close_time, 0)
    return StoredWindow(mode, key, Bar(*fields, bar.total, bar.count))


def test_the_table_is_the_one_of_the_contract(server: PostgresServer) -> None:
    columns = dict(
        server.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'aggregated_prices'"
        )
    )
    assert columns == {
        "mode": "text",
        "pair_name": "text",
        "exchange": "text",
        "window_start": "timestamp with time zone",
        "timestamp": "timestamp with time zone",
        "average_price": "double precision",
        "min_price": "double precision",
        "max_price": "double precision",
        "open_price": "double precision",
        "close_price": "double precision",
        "tick_count": "bigint",
        "open_time": "bigint",
        "close_time": "bigint",
        "high_time": "bigint",
        "low_time": "bigint",
        "total_price": "double precision",
    }
    keys = server.execute("""
        SELECT pg_get_constraintdef(oid) FROM pg_constraint
        WHERE contype = 'p' AND conrelid = 'aggregated_prices'::regclass
    """)
    assert keys == [("PRIMARY KEY (mode, exchange, pair_name, window_start)",)]


def test_a_row_reads_as_the_contract_says(server: PostgresServer, store: PostgresStore) -> None:
    store.store([window(NOON, 2.0, 8.0, 1.0, 4.0)])
    rows = server.execute("""
        SELECT mode, pair_name, exchange, extract(epoch FROM window_start)::bigint, average_price, min_price, max_price,
            open_price, close_price, tick_count, open_time, close_time, high_time, low_time, total_price
        FROM aggregated_prices WHERE abs(extract(epoch FROM clock_timestamp() - timestamp)) < 60
    """)
    prices = (3.75, 1.0, 8.0, 2.0, 4.0)
    times = (NOON, NOON + 3, NOON + 1, NOON + 2)
    assert rows == [("live", "BTCUSDT", "exchange1", NOON // 1000, *prices, 4, *times, 15.0)]


@pytest.mark.parametrize("price", [0.1, 1 / 3, 67012.123456789012, 5e-324, 1.7976931348623157e308, 2.0**53 + 2])
def test_prices_come_back_bit_for_bit(store: PostgresStore, price: float) -> None:
    stored = window(NOON, price)
    store.store([stored])
    assert store.load(LIVE, "exchange1", NOON) == [without_order(stored)]


def test_a_total_past_all_doubles_is_stored_and_leaves_highest_and_lowest(store: PostgresStore) -> None:
    stored = [window(NOON, 1.7e308), window(NOON + MINUTE, 1.7e308), window(NOON + 2 * MINUTE, 1.7e308, 1.7e308)]
    store.store(stored)
    assert store.load(LIVE, "exchange1", NOON + 2 * MINUTE)[0].bar.total == math.inf
    found = store.summarize(LIVE, "BTCUSDT", None, NOON, NOON + 3 * MINUTE, ())["exchange1"]
    assert (found.high, found.low, found.count) == (1.7e308, 1.7e308, 4)
    assert math.isfinite(found.total)


@pytest.mark.parametrize("start", [0, 1, 999, NOON + 1, NOON + 17, 4_102_444_799_999])
def test_times_are_exact_to_the_millisecond(store: PostgresStore, start: int) -> None:
    store.store([window(start, 1.0)])
    assert [stored.key.start for stored in store.load(LIVE, "exchange1", start)] == [start]
    assert store.load(LIVE, "exchange1", start + 1) == []
    assert store.summarize(LIVE, "BTCUSDT", None, start, start + 1, ()) == {
        "exchange1": Summary(1.0, start, 1.0, start, 1.0, 1)
    }
    assert store.summarize(LIVE, "BTCUSDT", None, start - 1, start, ()) == {}


def test_a_state_is_replaced_by_one_with_as_many_ticks_and_not_by_one_with_fewer(store: PostgresStore) -> None:
    store.store([window(NOON, 1.0, 2.0)])
    store.store([window(NOON, 9.0)])
    assert store.load(LIVE, "exchange1", NOON)[0].bar.high == 2.0
    store.store([window(NOON, 3.0, 4.0)])
    assert store.load(LIVE, "exchange1", NOON)[0].bar.high == 4.0
    store.store([window(NOON, 1.0, 5.0, 2.0)])
    assert store.load(LIVE, "exchange1", NOON) == [without_order(window(NOON, 1.0, 5.0, 2.0))]


def test_of_two_states_in_one_call_the_one_with_more_ticks_is_stored(store: PostgresStore) -> None:
    states = [window(NOON, 1.0), window(NOON, 1.0, 2.0, 3.0), window(NOON, 1.0, 2.0)]
    store.store(states)
    assert store.load(LIVE, "exchange1", NOON) == [without_order(states[1])]


def test_each_month_of_utc_is_a_partition(server: PostgresServer, store: PostgresStore) -> None:
    store.store([window(DECEMBER - 1, 1.0), window(DECEMBER, 2.0)])
    rows = server.execute("SELECT tableoid::regclass::text, max_price FROM aggregated_prices ORDER BY window_start")
    assert rows == [("aggregated_prices_2025_11", 1.0), ("aggregated_prices_2025_12", 2.0)]


def test_modes_never_mix(store: PostgresStore) -> None:
    store.store([window(NOON, 1.0, mode=LIVE), window(NOON, 2.0, mode=TEST)])
    for mode, price in ((LIVE, 1.0), (TEST, 2.0)):
        assert [stored.bar.high for stored in store.load(mode, "exchange1", 0)] == [price]
        assert store.latest(mode, "BTCUSDT", None) == {"exchange1": Latest(price, NOON)}
        assert store.summarize(mode, "BTCUSDT", None, NOON, NOON + 1, ())["exchange1"].high == price


def test_latest_is_the_close_of_the_newest_row_of_each_exchange(store: PostgresStore) -> None:
    store.store(
        [
            window(NOON, 1.0, 2.0, exchange="exchange1"),
            window(DECEMBER, 3.0, 4.0, exchange="exchange1"),
            window(NOON - MINUTE, 5.0, exchange="exchange2"),
            window(DECEMBER, 6.0, exchange="exchange2", symbol="ETHUSDT"),
            window(DECEMBER, 7.0, exchange="exchange3", symbol="ETHUSDT"),
        ]
    )
    first, second = Latest(4.0, DECEMBER + 1), Latest(5.0, NOON - MINUTE)
    assert store.latest(LIVE, "BTCUSDT", None) == {"exchange1": first, "exchange2": second}
    assert store.latest(LIVE, "BTCUSDT", "exchange2") == {"exchange2": second}
    assert store.latest(LIVE, "BTCUSDT", "exchange3") == {}
    assert store.latest(LIVE, "AAAUSDT", "exchange1") == {}
    assert store.latest(LIVE, "ZZZUSDT", None) == {}
    assert store.latest(TEST, "BTCUSDT", None) == {}


def test_an_empty_table_answers_with_nothing(store: PostgresStore) -> None:
    store.store([])
    assert store.latest(LIVE, "BTCUSDT", None) == {}
    assert store.load(LIVE, "exchange1", 0) == []
    assert store.summarize(LIVE, "BTCUSDT", None, 0, NOON, ()) == {}
    store.ping()


def test_values_are_never_read_as_sql(store: PostgresStore) -> None:
    name = "%s'; DROP TABLE aggregated_prices; --\\ \"é"
    store.store([window(NOON, 1.0, exchange=name, symbol=name)])
    assert store.latest(LIVE, name, name) == {name: Latest(1.0, NOON)}
    assert list(store.summarize(LIVE, name, name, NOON, NOON + 1, [(name, NOON + 1)])) == [name]


# ------------------------------------------------------------------------------------- against an oracle

EXCHANGES = ("exchange1", "exchange2", "exchange3")
SYMBOLS = ("BTCUSDT", "ETHUSDT")
WINDOWS = 6
FIRST = DECEMBER - 3 * MINUTE

ticks = st.tuples(
    st.sampled_from(MODES),
    st.sampled_from(EXCHANGES),
    st.sampled_from(SYMBOLS),
    st.integers(FIRST, FIRST + WINDOWS * MINUTE - 1),
    st.sampled_from([1.0, 2.5, 67012.1]) | st.floats(1e-6, 1e6),
)
edges = st.integers(0, WINDOWS).map(lambda index: FIRST + index * MINUTE)
keys = st.tuples(st.sampled_from(EXCHANGES), edges)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    received=st.lists(ticks, min_size=1, max_size=60),
    cut=st.integers(0, 60),
    exchange=st.none() | st.sampled_from(EXCHANGES),
    start=edges,
    end=edges,
    without=st.sets(keys, max_size=6),
)
@example(
    [(LIVE, "exchange1", "BTCUSDT", FIRST + 5, 1.0), (LIVE, "exchange1", "BTCUSDT", FIRST + MINUTE, 1.0)],
    1,
    None,
    FIRST,
    FIRST + 2 * MINUTE,
    set(),
)
def test_answers_are_those_of_the_ticks(
    server: PostgresServer,
    store: PostgresStore,
    received: list[tuple[Mode, str, str, int, float]],
    cut: int,
    exchange: str | None,
    start: int,
    end: int,
    without: set[tuple[str, int]],
) -> None:
    server.execute("TRUNCATE aggregated_prices")
    bars: dict[tuple[Mode, WindowKey], Bar] = {}
    states: list[StoredWindow] = []
    for order, (mode, name, symbol, time, price) in enumerate(received):
        key = mode, WindowKey(name, symbol, time - time % MINUTE)
        tick = fold([price], [time], order)
        bars[key] = merge(bars[key], tick) if key in bars else tick
        if order == cut:
            states = [StoredWindow(*each, bar) for each, bar in bars.items()]
    store.store(states)
    store.store([StoredWindow(*each, bar) for each, bar in bars.items()])
    store.store(states)

    for mode in MODES:
        for name in EXCHANGES:
            expected = [
                without_order(StoredWindow(*each, bar))
                for each, bar in bars.items()
                if each[0] == mode and each[1].exchange == name and each[1].start >= start
            ]
            assert sorted(store.load(mode, name, start)) == sorted(expected)
        for symbol in SYMBOLS:
            mine = {each[1]: bar for each, bar in bars.items() if each[0] == mode and each[1].symbol == symbol}
            _check_summary(
                store.summarize(mode, symbol, exchange, start, end, without), mine, exchange, start, end, without
            )
            newest = {key.exchange: mine[key] for key in sorted(mine) if exchange in {None, key.exchange}}
            assert store.latest(mode, symbol, exchange) == {
                name: Latest(bar.close, bar.close_time) for name, bar in newest.items()
            }


def _check_summary(
    answer: dict[str, Summary],
    bars: dict[WindowKey, Bar],
    exchange: str | None,
    start: int,
    end: int,
    without: set[tuple[str, int]],
) -> None:
    expected: dict[str, Summary] = {}
    for key, bar in bars.items():
        if start <= key.start < end and exchange in {None, key.exchange} and (key.exchange, key.start) not in without:
            known = expected.get(key.exchange)
            expected[key.exchange] = of_bar(bar) if known is None else known.merge(of_bar(bar))
    rounded = {name: summary._replace(total=0.0) for name, summary in expected.items()}
    assert {name: summary._replace(total=0.0) for name, summary in answer.items()} == rounded
    assert {name: summary.total for name, summary in answer.items()} == pytest.approx(
        {name: summary.total for name, summary in expected.items()}, rel=1e-12
    )
    assert all(isinstance(each.high_time, int) and isinstance(each.count, int) for each in answer.values())
