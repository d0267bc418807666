"""The future keeps Pykka's promises, and holds up its greenlet only."""

from __future__ import annotations

import queue
import sys
import time
from typing import Any

import gevent
import pykka
import pytest

from actors.runtime import GeventFuture, get_all


@pytest.fixture
def future() -> GeventFuture[Any]:
    return GeventFuture()


def test_get_waits_for_set_in_any_number_of_greenlets(future: GeventFuture[Any]) -> None:
    getters = [gevent.spawn(future.get) for _ in range(3)]
    gevent.idle()
    assert not any(getter.dead for getter in getters)
    future.set(42)
    assert [getter.get(timeout=1) for getter in getters] == [42, 42, 42]
    assert future.get() == 42


def test_none_is_a_result(future: GeventFuture[Any]) -> None:
    future.set()
    assert future.get(timeout=1) is None


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_get_gives_up_after_its_timeout(future: GeventFuture[Any], timeout: float) -> None:
    with pytest.raises(pykka.Timeout):
        future.get(timeout=timeout)
    future.set("late")
    assert future.get(timeout=0) == "late"


def test_the_callers_own_timeout_stays_its_own(future: GeventFuture[Any]) -> None:
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        future.get(timeout=60)


def test_exceptions_are_raised_with_their_traceback(future: GeventFuture[Any]) -> None:
    def fail() -> None:
        raise KeyError("here")

    try:
        fail()
    except KeyError:
        future.set_exception()
    with pytest.raises(KeyError, match="here") as caught:
        future.get(timeout=1)
    assert caught.traceback[-1].name == "fail"


def test_an_exception_type_alone_will_do(future: GeventFuture[Any]) -> None:
    future.set_exception((ValueError, None, None))
    with pytest.raises(ValueError, match=r"^$"):
        future.get(timeout=1)


def test_a_result_is_set_once(future: GeventFuture[Any]) -> None:
    future.set(1)
    with pytest.raises(queue.Full):
        future.set(2)
    with pytest.raises(queue.Full):
        future.set_exception()
    with pytest.raises(queue.Full):
        future.set_get_hook(lambda _timeout: 2)
    assert future.get(timeout=1) == 1


def test_a_hook_gives_the_result_once(future: GeventFuture[Any]) -> None:
    seen: list[float | None] = []
    future.set_get_hook(lambda timeout: seen.append(timeout) or "hooked")  # type: ignore[func-returns-value]  # appends
    assert future.get(timeout=3) == "hooked"
    assert future.get() == "hooked"
    assert seen == [3]
    with pytest.raises(queue.Full):
        future.set(1)


def test_a_hook_reaches_who_waits_already(future: GeventFuture[Any]) -> None:
    getter = gevent.spawn(future.get)
    gevent.idle()
    future.set_get_hook(lambda _timeout: "hooked")
    assert getter.get(timeout=1) == "hooked"


def test_pykkas_combinations_work(future: GeventFuture[Any]) -> None:
    other: GeventFuture[Any] = GeventFuture()
    joined = future.join(other)
    mapped = future.map(sum)
    filtered = future.filter(lambda value: value > 1)
    reduced = future.reduce(lambda left, right: left * right, 10)
    future.set([1, 2, 3])
    other.set("other")
    assert joined.get(timeout=1) == [[1, 2, 3], "other"]
    assert mapped.get(timeout=1) == 6
    assert filtered.get(timeout=1) == [2, 3]
    assert reduced.get(timeout=1) == 60


def test_the_timeout_of_get_all_is_total() -> None:
    futures: list[GeventFuture[Any]] = [GeventFuture() for _ in range(20)]
    for index, future in enumerate(futures):
        gevent.spawn_later(0.04 * (index + 1), future.set, index)
    began = time.monotonic()
    with pytest.raises(pykka.Timeout):
        get_all(futures, timeout=0.1)
    assert time.monotonic() - began < 0.5
    assert get_all(futures[:2]) == [0, 1]
    assert get_all(futures[:2], timeout=0) == [0, 1]


def test_exc_info_of_the_moment_is_the_default(future: GeventFuture[Any]) -> None:
    try:
        int("no number")
    except ValueError:
        future.set_exception(sys.exc_info())
    with pytest.raises(ValueError, match="no number"):
        future.get()
