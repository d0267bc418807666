"""An exchange's clock: what its ticks say, moved on by the time that has passed since."""

from hypothesis import given
from hypothesis import strategies as st

from marketflow.domain.window import EventClock

SEEN = st.lists(st.tuples(st.integers(10**12, 10**12 + 10**6), st.integers(0, 10**6)), min_size=1, max_size=20)


def test_before_the_first_tick_the_default_holds() -> None:
    assert EventClock().time(5_000, default=1_763_827_200_000) == 1_763_827_200_000


@given(SEEN, st.integers(0, 10**6))
def test_the_time_is_the_furthest_that_a_tick_has_told(seen: list[tuple[int, int]], later: int) -> None:
    clock = EventClock()
    for timestamp, monotonic in seen:
        clock.saw(timestamp, monotonic)
    now = max(monotonic for _, monotonic in seen) + later
    assert clock.time(now, default=0) == max(timestamp + (now - monotonic) for timestamp, monotonic in seen)


def test_a_late_tick_does_not_set_the_clock_back() -> None:
    clock = EventClock()
    clock.saw(10_000, 100)
    clock.saw(4_000, 150)
    assert clock.time(200, default=0) == 10_100
