"""Bars: what a set of ticks of one pair and exchange amounts to, as a commutative monoid under `merge`."""

import msgspec

SLICE_MS = 100
"""Length in milliseconds of the time slice that a price worker folds ticks into, aligned to the Unix epoch."""


class Bar(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Open, high, low, close, total and count of at least one tick. Prices in quote currency, times in Unix ms.

    `open_order` and `close_order` decide between ticks of the same millisecond: the order in which their batches
    were received (a number that grows for ever, across restarts too). A high or low reached twice keeps the
    earlier time.
    """

    open: float
    open_time: int
    open_order: int
    high: float
    high_time: int
    low: float
    low_time: int
    close: float
    close_time: int
    close_order: int
    total: float
    count: int

    @property
    def average(self) -> float:
        """Total over count, in quote currency."""
        return self.total / self.count


def merge(a: Bar, b: Bar) -> Bar:
    """Return the bar of the ticks of both. Commutative; associative up to the rounding of `total`."""
    first = last = high = low = a
    if b.open_time < a.open_time or (b.open_time == a.open_time and b.open_order < a.open_order):
        first = b
    if b.close_time > a.close_time or (b.close_time == a.close_time and b.close_order > a.close_order):
        last = b
    if b.high > a.high or (b.high == a.high and b.high_time < a.high_time):
        high = b
    if b.low < a.low or (b.low == a.low and b.low_time < a.low_time):
        low = b
    return Bar(
        first.open,
        first.open_time,
        first.open_order,
        high.high,
        high.high_time,
        low.low,
        low.low_time,
        last.close,
        last.close_time,
        last.close_order,
        a.total + b.total,
        a.count + b.count,
    )


def fold_in_order(prices: list[float], times: list[int], order: int) -> Bar:
    """Return the bar of ticks given as two columns in order of receipt, whose times do not decrease."""
    open_time, close_time = times[0], times[-1]
    count = len(prices)
    if count == 1:
        price = prices[0]
        return Bar(price, open_time, order, price, open_time, price, open_time, price, open_time, order, price, 1)
    high, low = max(prices), min(prices)
    return Bar(
        prices[0],
        open_time,
        order,
        high,
        times[prices.index(high)],
        low,
        times[prices.index(low)],
        prices[-1],
        close_time,
        order,
        sum(prices),
        count,
    )


def fold(prices: list[float], times: list[int], order: int) -> Bar:
    """Return the bar of ticks given as two columns in order of receipt, all received in the batch `order`."""
    open_time, close_time = min(times), max(times)
    high, low = max(prices), min(prices)
    count = len(prices)
    return Bar(
        prices[times.index(open_time)],
        open_time,
        order,
        high,
        _first_time(prices, times, high),
        low,
        _first_time(prices, times, low),
        prices[count - 1 - times[::-1].index(close_time)],
        close_time,
        order,
        sum(prices),
        count,
    )


def _first_time(prices: list[float], times: list[int], price: float) -> int:
    """The earliest time at which `price` was seen."""
    first = prices.index(price)
    if prices.count(price) == 1:
        return times[first]
    return min(time for seen, time in zip(prices, times, strict=True) if seen == price)
