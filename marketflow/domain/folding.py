"""Folding: from the columns of a batch to the bars of its 100 ms slices, dropping what is too far from now."""

from typing import NamedTuple, TypeAlias

from marketflow.domain.bar import SLICE_MS, Bar, fold, fold_in_order
from marketflow.domain.feed import Columns

SliceBars: TypeAlias = dict[str, dict[int, Bar]]
"""Bars by symbol and start of their slice (Unix ms)."""


class Folded(NamedTuple):
    """The bars of a batch, the ticks in them, and the ticks left out because of their timestamp."""

    bars: SliceBars
    accepted: int
    bad_timestamps: int


def fold_columns(columns: Columns, order: int, now: int, max_skew: int) -> Folded:
    """Fold the ticks of a batch received at `now`; a tick further than `max_skew` from it is left out (all in ms).

    `order` is the place of the batch in the order of receipt, see `Bar`.
    """
    earliest, latest = now - max_skew, now + max_skew
    bars: SliceBars = {}
    accepted = dropped = 0
    for symbol, received in columns.items():
        prices, times = received
        # An exchange sends in the order of time, nearly always: then the ends of the column are its first and last.
        in_order = sorted(times) == times
        fold_one = fold_in_order if in_order else fold
        first, last = (times[0], times[-1]) if in_order else (min(times), max(times))
        if first < earliest or last > latest:
            kept = [(price, time) for price, time in zip(prices, times, strict=True) if earliest <= time <= latest]
            dropped += len(times) - len(kept)
            if not kept:
                continue
            prices, times = [price for price, _ in kept], [time for _, time in kept]
            first, last = min(times), max(times)
        accepted += len(times)
        start = first - first % SLICE_MS
        if last - start < SLICE_MS:
            bars[symbol] = {start: fold_one(prices, times, order)}
        else:
            slices = _by_slice(prices, times)
            bars[symbol] = {start: fold_one(*of_slice, order) for start, of_slice in slices.items()}
    return Folded(bars, accepted, dropped)


def _by_slice(prices: list[float], times: list[int]) -> dict[int, tuple[list[float], list[int]]]:
    """Return the columns of each slice, in order of receipt, by its start."""
    slices: dict[int, tuple[list[float], list[int]]] = {}
    for price, time in zip(prices, times, strict=True):
        slice_prices, slice_times = slices.setdefault(time - time % SLICE_MS, ([], []))
        slice_prices.append(price)
        slice_times.append(time)
    return slices
