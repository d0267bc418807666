"""The price model: seeded, positive, correlated between exchanges, never far from where it should be."""

import math
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from testgen.model import base_price, decimals, ticks
from testgen.settings import DEFAULT_SYMBOLS, Walk

SYMBOLS = list(DEFAULT_SYMBOLS)
CALM = Walk(volatility=0, noise=0, jumps=0)


def take(exchange: str, count: int, *, seed: int = 1, walk: Walk | None = None) -> list[tuple[str, float]]:
    return list(islice(ticks(exchange, SYMBOLS, seed, walk or Walk(), {}), count))


def returns(exchange: str, walk: Walk, symbol: str = "BTCUSDT") -> list[float]:
    prices = [price for name, price in take(exchange, 10_000, walk=walk) if name == symbol]
    return [math.log(after / before) for before, after in pairwise(prices)]


def correlation(left: list[float], right: list[float]) -> float:
    mean_left, mean_right = sum(left) / len(left), sum(right) / len(right)
    shared = sum((a - mean_left) * (b - mean_right) for a, b in zip(left, right, strict=True))
    spread = sum((a - mean_left) ** 2 for a in left) * sum((b - mean_right) ** 2 for b in right)
    return shared / math.sqrt(spread)


def test_a_seed_gives_one_sequence_per_exchange() -> None:
    assert take("a", 500) == take("a", 500)
    assert take("a", 500) != take("b", 500)
    assert take("a", 500) != take("a", 500, seed=2)


def test_every_symbol_ticks_once_in_a_round() -> None:
    names = [name for name, _ in take("a", 50)]
    rounds = [names[start : start + 5] for start in range(0, 50, 5)]
    assert all(sorted(names_of_round) == sorted(SYMBOLS) for names_of_round in rounds)
    assert len({tuple(names_of_round) for names_of_round in rounds}) > 1


def test_exchanges_move_together_but_not_alike() -> None:
    walk = Walk(volatility=0.001, noise=0.0003, jumps=0)
    assert 0.7 < correlation(returns("a", walk), returns("b", walk)) < 0.99


def test_pairs_move_apart() -> None:
    walk = Walk(volatility=0.001, noise=0.0, jumps=0)
    assert abs(correlation(returns("a", walk), returns("a", walk, "ETHUSDT"))) < 0.2


def test_exchanges_stay_together_however_long() -> None:
    walk = Walk(volatility=0.001, noise=0.0001)
    left, right = dict(take("a", 50_000, walk=walk)), dict(take("b", 50_000, walk=walk))
    assert all(abs(math.log(left[symbol] / right[symbol])) < 0.01 for symbol in SYMBOLS)


def test_a_stride_follows_a_faster_exchange() -> None:
    fast = dict(take("a", 50 * 10, walk=Walk(noise=0, jumps=0.01)))
    assert dict(take("b", 50, walk=Walk(noise=0, jumps=0.01, stride=10))) == fast


def test_drift_volatility_and_jumps_do_what_they_say() -> None:
    assert set(returns("a", CALM)) == {0.0}
    drifting = returns("a", replace(CALM, drift=0.001))
    assert sum(drifting) / len(drifting) == pytest.approx(0.001, rel=0.01)
    moving = returns("a", replace(CALM, volatility=0.001))
    assert math.sqrt(sum(step**2 for step in moving) / len(moving)) == pytest.approx(0.001, rel=0.1)
    jumping = returns("a", replace(CALM, jumps=0.1, jump_size=0.01))
    assert sum(abs(step) > 1e-5 for step in jumping) / len(jumping) == pytest.approx(0.1, rel=0.3)


@settings(deadline=None)
@given(
    st.floats(-0.01, 0.01), st.floats(0, 0.1), st.floats(0, 0.1), st.floats(0, 1), st.floats(0, 1), st.integers(1, 50)
)
def test_prices_are_positive_finite_and_rounded_whatever_the_walk(
    drift: float, volatility: float, noise: float, jumps: float, jump_size: float, stride: int
) -> None:
    walk = Walk(drift, volatility, noise, jumps, jump_size, stride)
    for symbol, price in take("a", 200, walk=walk):
        assert price > 0
        assert math.isfinite(price)
        assert price == round(price, decimals(base_price(symbol)))


def test_given_prices_are_where_the_walk_starts() -> None:
    assert next(ticks("a", ["NEWUSDT"], 1, CALM, {"NEWUSDT": 12.5})) == ("NEWUSDT", 12.5)
    assert next(ticks("a", ["NEWUSDT"], 1, CALM, {})) == ("NEWUSDT", base_price("NEWUSDT"))
