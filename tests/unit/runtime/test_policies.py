"""Backoff, restart intensity and strategies are values and pure functions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime import Backoff, ChildSpec, GeventActor, Intensity, Strategy, SupervisorSpec
from actors.runtime.specs import RestartWindow

names = st.lists(st.text("abcdef", min_size=1, max_size=3), unique=True, min_size=1)


@given(
    times=st.lists(st.floats(0, 100), max_size=40).map(sorted),
    restarts=st.integers(0, 6),
    within=st.floats(0.1, 50),
)
def test_intensity_is_exceeded_by_more_than_so_many_in_the_last_seconds(
    times: list[float], restarts: int, within: float
) -> None:
    window = RestartWindow(Intensity(restarts, within))
    for index, now in enumerate(times):
        recent = [time for time in times[: index + 1] if now - time <= within]
        assert window.exceeded_by(now) == (len(recent) > restarts)


@given(attempt=st.integers(0, 10_000), chance=st.floats(0, 1, exclude_max=True), jitter=st.floats(0, 1))
def test_backoff_stays_within_its_jitter_below_the_doubling_delay(attempt: int, chance: float, jitter: float) -> None:
    backoff = Backoff(initial=0.1, maximum=3.0, jitter=jitter)
    full = 0.1 * 2**attempt if attempt < 5 else 3.0
    assert full * (1 - jitter) <= backoff.delay(attempt, chance) <= full


def test_backoff_doubles_up_to_its_maximum() -> None:
    backoff = Backoff(initial=1, maximum=5, jitter=0.5)
    assert [backoff.delay(attempt, 0) for attempt in range(5)] == [1, 2, 4, 5, 5]
    assert backoff.delay(0, 0.5) == 0.75


@given(names=names, data=st.data())
def test_strategies_choose_the_failed_one_all_or_the_rest(names: list[str], data: st.DataObject) -> None:
    failed = data.draw(st.sampled_from(names))
    assert Strategy.ONE_FOR_ONE.affected(names, failed) == [failed]
    assert Strategy.ONE_FOR_ALL.affected(names, failed) == names
    rest = Strategy.REST_FOR_ONE.affected(names, failed)
    assert rest[0] == failed
    assert names[-len(rest) :] == rest


@pytest.mark.parametrize("name", ["", "a/b"])
def test_names_are_steps_of_a_path(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        ChildSpec(name, GeventActor)
    with pytest.raises(ValueError, match="name"):
        SupervisorSpec(name)


def test_siblings_have_different_names() -> None:
    with pytest.raises(ValueError, match="different names"):
        SupervisorSpec("root", children=[ChildSpec("a", GeventActor), ChildSpec("a", GeventActor)])


def test_policies_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="intensity"):
        Intensity(restarts=-1)
    with pytest.raises(ValueError, match="backoff"):
        Backoff(initial=2, maximum=1)
