"""Durations and periods, as users write them and as spans of time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.domain.period import Span, floor, format_duration, parse_duration, parse_period, span_of

YEAR = 365 * 86_400_000
UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@given(st.integers(0, 999_999_999_999), st.sampled_from(sorted(UNITS)))
def test_a_duration_is_an_integer_and_a_unit(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == number * UNITS[unit]


@given(st.one_of(st.integers(0, 999_999_999_999), st.integers(0, 9_999).map(lambda minutes: minutes * 60_000)))
def test_formatting_a_duration_is_the_inverse_of_parsing_it(milliseconds: int) -> None:
    text = format_duration(milliseconds)
    assert parse_duration(text) == milliseconds
    assert len(text) <= len(f"{milliseconds}ms")


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0ms"),
        (250, "250ms"),
        (1_500, "1500ms"),
        (30_000, "30s"),
        (60_000, "1m"),
        (5_400_000, "90m"),
        (YEAR, "365d"),
    ],
)
def test_a_duration_is_written_in_its_largest_whole_unit(milliseconds: int, text: str) -> None:
    assert format_duration(milliseconds) == text


WRONG = [
    "",
    "s",
    "30",
    "30 s",
    " 30s",
    "30s ",
    "30S",
    "-1s",
    "+1s",
    "1.5s",
    "1e3s",
    "30sec",
    "30s\n",
    "٣s",
    "1w",
    "0x1s",
]


@pytest.mark.parametrize("text", [*WRONG, "1" * 13 + "s", "9" * 5_000 + "d"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="such as 30s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("1s", 1_000), ("3s", 3_000), ("30s", 30_000), ("1m", 60_000), ("5m", 300_000), ("1h", 3_600_000), ("365d", YEAR)],
)
def test_a_period_goes_from_a_second_to_the_retention(text: str, milliseconds: int) -> None:
    assert parse_period(text, YEAR) == milliseconds


@pytest.mark.parametrize("text", [*WRONG, "0s", "0d", "366d", "31536001s", "1000ms", "60000ms", "999999999999d"])
def test_any_other_period_is_refused_with_the_accepted_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"s, m, h, d is expected, from 1s to 365d"):
        parse_period(text, YEAR)


@given(st.integers(-(10**13), 10**13), st.sampled_from([100, 1_000, 60_000]))
def test_floor_is_the_last_multiple_that_is_not_after(time: int, grain: int) -> None:
    assert floor(time, grain) % grain == 0
    assert floor(time, grain) <= time < floor(time, grain) + grain


def test_a_span_starts_a_period_ago_and_ends_now_rounded_down() -> None:
    assert span_of(1_763_827_200_199, 30_000) == Span(1_763_827_170_100, 1_763_827_200_100)


def test_a_span_beyond_the_series_starts_with_a_stored_window() -> None:
    assert span_of(1_763_827_230_199, 3_600_000, 60_000) == Span(1_763_823_600_000, 1_763_827_230_100)
