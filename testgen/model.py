"""The price model: a seeded geometric random walk per pair, correlated between exchanges."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence

from testgen.settings import Walk

BASE_PRICES = {"BTCUSDT": 67000.0, "DOGEUSDT": 0.162, "TONUSDT": 5.4, "SOLUSDT": 172.0, "ETHUSDT": 3480.0}

_REVERSION = 0.02  # of an exchange's own deviation, per tick: arbitrage keeps real exchanges together
_REACH = math.log(1e6)  # no price leaves its base by more than this factor, so none overflows or gets to 0


def base_price(symbol: str) -> float:
    """Where the walk of `symbol` starts: a known price, or one between 0.01 and 10000 that its name decides."""
    known = BASE_PRICES.get(symbol)
    return known if known is not None else float(f"{10 ** random.Random(symbol).uniform(-2, 4):.4g}")  # noqa: S311 - prices, not secrets


def decimals(base: float) -> int:
    """Decimals of a pair's prices: six significant digits at its base price."""
    return max(0, 5 - math.floor(math.log10(base)))


def ticks(
    exchange: str, symbols: Sequence[str], seed: int, walk: Walk, prices: Mapping[str, float]
) -> Iterator[tuple[str, float]]:
    """Symbols and prices of `exchange`, for ever: rounds in which each symbol ticks once, in random order.

    In a round every exchange takes the same common step per symbol, by `seed` alone; its order and its own
    deviation, which reverts to 0, are by `seed` and name. Prices are positive and rounded to `decimals`.
    """
    common_source = random.Random(f"{seed}/common")  # noqa: S311 - prices, not secrets
    own_source = random.Random(f"{seed}/{exchange}")  # noqa: S311 - as above
    count = len(symbols)
    bases = [prices.get(symbol) or base_price(symbol) for symbol in symbols]
    digits = [decimals(base) for base in bases]
    common = [0.0] * count
    own = [0.0] * count
    order = list(range(count))
    while True:
        for _ in range(walk.stride):
            _advance(common, common_source, walk)
        own_source.shuffle(order)
        for index in order:
            own[index] = own[index] * (1 - _REVERSION) + own_source.gauss(0, walk.noise)
            away = max(-_REACH, min(_REACH, common[index] + own[index]))
            price = round(bases[index] * math.exp(away), digits[index])
            yield symbols[index], max(price, 10.0 ** -digits[index])


def _advance(common: list[float], source: random.Random, walk: Walk) -> None:
    for index in range(len(common)):
        step = source.gauss(walk.drift, walk.volatility)
        if source.random() < walk.jumps:
            step += source.gauss(0, walk.jump_size)
        common[index] += step
