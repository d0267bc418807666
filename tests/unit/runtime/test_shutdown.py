"""Coordinated shutdown: phases in order, each within its time, once."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable

import gevent
import pytest
from gevent.event import Event

from actors.runtime import CoordinatedShutdown, Phase


def test_phases_run_in_order_their_actions_together() -> None:
    done: list[str] = []
    both = [Event(), Event()]

    def meet(mine: int) -> Callable[[], None]:
        def action() -> None:
            both[mine].set()
            assert both[1 - mine].wait(1)
            done.append("first")

        return action

    reports = CoordinatedShutdown(
        [
            Phase("feeds", 1, [meet(0), meet(1)]),
            Phase("nothing", 1, []),
            Phase("stores", 1, [lambda: done.append("second")]),
        ]
    ).run()
    assert done == ["first", "first", "second"]
    assert [(report.name, report.late, report.errors) for report in reports] == [
        ("feeds", (), ()),
        ("nothing", (), ()),
        ("stores", (), ()),
    ]


def test_what_is_late_or_fails_is_reported_and_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def hang() -> None:
        Event().wait()

    def fail() -> None:
        raise OSError("flush")

    began = time.monotonic()
    first, second = CoordinatedShutdown(
        [Phase("flush", 0.05, [hang, fail]), Phase("close", 1, [lambda: done.append("closed")])]
    ).run()
    assert time.monotonic() - began < 1
    assert done == ["closed"]
    assert [name.rpartition(".")[2] for name in first.late] == ["hang"]
    assert 0.05 <= first.seconds < 1
    assert len(first.errors) == 1
    assert first.errors[0].endswith("fail: OSError('flush')")
    assert second.late == ()
    failed, late = (record.getMessage() for record in caplog.records)
    assert failed.startswith("A shutdown action failed: ")
    assert failed.endswith("fail")
    assert late.startswith("Shutdown phase flush: not done within 0.05 s: ")
    assert late.endswith("hang")


def test_what_does_not_let_itself_be_ended_holds_up_nothing_either() -> None:
    go = Event()

    def stubborn() -> None:
        with contextlib.suppress(gevent.GreenletExit):
            Event().wait()
        go.wait()

    def other() -> None:
        Event().wait()

    with gevent.Timeout(5):
        (report,) = CoordinatedShutdown([Phase("flush", 0.01, [stubborn, other])]).run()
    assert [name.rpartition(".")[2] for name in report.late] == ["stubborn", "other"]
    go.set()


def test_an_action_without_a_name_is_told_by_what_it_is() -> None:
    hang = functools.partial(Event().wait, None)
    (report,) = CoordinatedShutdown([Phase("flush", 0.01, [hang])]).run()
    assert report.late == (repr(hang),)


def test_it_runs_once_and_all_who_ask_get_the_report() -> None:
    runs: list[int] = []
    go = Event()

    def action() -> None:
        runs.append(1)
        go.wait()

    shutdown = CoordinatedShutdown([Phase("only", 1, [action])])
    callers = [gevent.spawn(shutdown.run) for _ in range(3)]
    gevent.idle()
    go.set()
    reports = [caller.get(timeout=1) for caller in callers]
    assert runs == [1]
    assert reports[0] == reports[1] == reports[2] == shutdown.run()
