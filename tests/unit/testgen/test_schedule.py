"""When ticks are due."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testgen.schedule import Schedule
from testgen.settings import Bursts, Duration

rates = st.floats(0.1, 1e6)
bursts = st.one_of(
    st.just(Bursts()),
    st.builds(
        lambda every, share, factor: Bursts(Duration(every), Duration(every * share), factor),
        st.floats(0.1, 100),
        st.floats(0.01, 1),
        st.floats(1, 100),
    ),
)


def test_the_first_tick_is_due_at_once_and_the_others_evenly() -> None:
    schedule = Schedule(10, Bursts())
    assert [schedule.due(elapsed) for elapsed in (0, 0.05, 0.1, 0.95, 1.0)] == [1, 1, 2, 10, 11]
    assert [schedule.at(tick) for tick in (0, 1, 10)] == [0, 0.1, 1.0]


def test_a_burst_ends_each_stretch() -> None:
    schedule = Schedule(10, Bursts(Duration(10), Duration(1), 20))
    assert schedule.due(9) == 91
    assert schedule.due(10) == 291
    assert schedule.due(19) - schedule.due(10) == 90
    assert schedule.at(90) == pytest.approx(9)
    assert schedule.at(190) == pytest.approx(9.5)
    assert schedule.at(290) == pytest.approx(10)


@settings(deadline=None)
@given(rates, bursts, st.integers(0, 10**7))
def test_a_tick_is_due_at_its_time_and_not_before(rate: float, burst: Bursts, tick: int) -> None:
    schedule = Schedule(rate, burst)
    due = schedule.at(tick)
    assert schedule.due(due + 1e-6 / rate) >= tick + 1 - max(1, tick * 1e-9)
    assert schedule.due(due * (1 - 1e-9) - 0.01 / rate) <= tick + 1


@settings(deadline=None)
@given(rates, bursts, st.floats(0, 1e4), st.floats(0, 1e4))
def test_later_never_means_fewer(rate: float, burst: Bursts, first: float, more: float) -> None:
    schedule = Schedule(rate, burst)
    assert schedule.due(first) <= schedule.due(first + more)


@settings(deadline=None)
@given(rates, bursts, st.integers(0, 10**6))
def test_a_later_tick_is_never_due_earlier(rate: float, burst: Bursts, tick: int) -> None:
    schedule = Schedule(rate, burst)
    assert schedule.at(tick) <= schedule.at(tick + 1) * (1 + 1e-12)
