"""Months of UTC, the partitions of aggregated_prices."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.adapters.postgres.partitions import Month, month_of_table, months_of
from marketflow.adapters.postgres.rows import instant

LAST_MS_OF_2025 = 1_767_225_599_999


def test_a_month_ends_at_midnight_utc() -> None:
    assert months_of([LAST_MS_OF_2025, LAST_MS_OF_2025 - 5]) == {Month(2025, 12)}
    assert months_of([LAST_MS_OF_2025, LAST_MS_OF_2025 + 1]) == {Month(2025, 12), Month(2026, 1)}


@pytest.mark.parametrize(("month", "following"), [(Month(2025, 1), Month(2025, 2)), (Month(2025, 12), Month(2026, 1))])
def test_months_follow_each_other(month: Month, following: Month) -> None:
    assert month.next == following


@given(st.integers(0, 4_102_444_800_000))
def test_a_month_holds_its_windows(start: int) -> None:
    (month,) = months_of([start])
    assert month.start <= start < month.next.start
    assert instant(month.start).day == 1


def test_a_table_tells_its_month() -> None:
    assert Month(2025, 1).table == "aggregated_prices_2025_01"
    assert month_of_table("aggregated_prices_2025_01") == Month(2025, 1)
    assert month_of_table("aggregated_prices_default") is None


@given(st.integers(0, 4_102_444_800_000))
def test_an_instant_is_exact_to_the_millisecond(time: int) -> None:
    delta = instant(time) - datetime(1970, 1, 1, tzinfo=UTC)
    assert (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds == time * 1000
