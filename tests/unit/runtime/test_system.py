"""The system as a whole: paths, children that come and go, what it tells of itself."""

from __future__ import annotations

import logging
import time

import gevent
import pykka
import pytest
from gevent.event import Event

from actors.runtime import (
    ActorSystem,
    Backoff,
    ChildSpec,
    DeadLettered,
    DeadLetters,
    DeadlockError,
    MailboxFullError,
    MailboxSpec,
    Overflow,
    Restart,
    Restarted,
    Started,
    Stopped,
    Strategy,
    SupervisorSpec,
    UnknownPathError,
)
from tests.support.actor_world import Probe, World, failing


def spec(world: World, name: str, **options: object) -> ChildSpec:
    return ChildSpec(name, Probe, args=(world,), **options)  # type: ignore[arg-type]  # options of ChildSpec


def test_paths(world: World) -> None:
    system = world.run(spec(world, "a"), SupervisorSpec("nest", children=[spec(world, "b")]))
    assert system.address("root/nest/b").ask(lambda probe: (probe.name, probe.path)) == ("b", "root/nest/b")
    for unknown in ("", "a", "root", "root/nest", "root/c", "root/a/b", "other/a"):
        with pytest.raises(UnknownPathError):
            system.address(unknown)
    assert str(system.address("root/a")) == "Probe (root/a)"


def test_a_tree_may_be_built_in_dependency_order(world: World) -> None:
    system = world.make()
    first = system.add_child("root", spec(world, "first"))
    system.add_child("root", SupervisorSpec("nest"))
    system.add_child("root/nest", ChildSpec("second", Probe, kwargs={"world": world, "label": str(first)}))
    assert world.notes == []
    system.start(timeout=1)
    assert world.notes == [("start", "first"), ("start", "Probe (root/first)")]


def test_children_come_and_go_while_it_runs(world: World) -> None:
    system = world.run(SupervisorSpec("pool"))
    added = system.add_child("root/pool", spec(world, "a"))
    assert added.ask("there", timeout=1) == "there"
    with pytest.raises(ValueError, match="already"):
        system.add_child("root/pool", spec(world, "a"))
    waiting = added.ask("never", block=False)
    assert waiting.get(timeout=1) == "never"
    report = system.remove_child("root/pool/a", timeout=1)
    assert report.late == ()
    assert world.notes[-1] == ("stop", "a")
    assert not added.is_alive()
    with pytest.raises(UnknownPathError):
        system.remove_child("root/pool/a")
    again = system.add_child("root/pool", spec(world, "a"))
    assert again.ask("again", timeout=1) == "again"
    with pytest.raises(pykka.ActorDeadError):
        added.tell("to the old one")


def test_a_child_that_ended_for_good_may_be_replaced(world: World) -> None:
    system = world.run(spec(world, "a", restart=Restart.TRANSIENT))
    old = system.address("root/a")
    old.stop(timeout=1)
    world.wait_until(lambda: not old.is_alive())
    new = system.add_child("root", spec(world, "a"))
    assert new.ask("new", timeout=1) == "new"


def test_an_added_child_is_supervised_like_the_others(world: World) -> None:
    system = world.run(spec(world, "a"), strategy=Strategy.ONE_FOR_ALL)
    system.add_child("root", spec(world, "b"))
    world.wait_for(Started, "root/b")
    system.address("root/a").tell(failing(ValueError("x")))
    world.wait_for(Restarted, "root/b")


def test_a_child_added_during_the_start_starts_after_the_others(world: World) -> None:
    go = Event()
    world.on_start["a"] = [go.wait]
    system = world.make(spec(world, "a"))
    starter = gevent.spawn(system.start, timeout=1)
    world.wait_until(lambda: ("start", "a") in world.notes)
    system.add_child("root", spec(world, "b"))
    gevent.idle()
    assert world.notes == [("start", "a")]
    go.set()
    starter.get(timeout=1)
    assert world.notes == [("start", "a"), ("start", "b")]


def test_a_child_may_be_removed_while_it_is_restarted_or_starts(world: World) -> None:
    system = world.run(spec(world, "a"), spec(world, "b"), strategy=Strategy.REST_FOR_ONE)
    world.on_start["a"] = [Event().wait]
    system.address("root/a").tell(failing(ValueError("x")))
    world.wait_until(lambda: world.notes.count(("start", "a")) == 2)
    assert system.remove_child("root/a", timeout=0.05).late == ("root/a",)
    world.wait_for(Restarted, "root/b")
    assert [info.path for info in system.tree()] == ["root", "root/b"]


def test_a_child_removed_in_its_backoff_does_not_come_back(world: World) -> None:
    slow = Backoff(initial=0.02, jitter=0)
    system = world.run(spec(world, "a"), spec(world, "b"), strategy=Strategy.REST_FOR_ONE, backoff=slow)
    system.address("root/a").tell(failing(ValueError("x")))
    world.wait_for(Stopped, "root/b")
    system.remove_child("root/a", timeout=1)
    world.wait_for(Restarted, "root/b")
    assert world.notes.count(("start", "a")) == 1


def test_an_actor_may_add_and_remove_its_siblings_but_not_wait_for_its_own_end(world: World) -> None:
    system = world.run(spec(world, "a"))
    address = system.address("root/a")
    address.ask(lambda _probe: system.add_child("root", spec(world, "b")), timeout=1)
    address.ask(lambda _probe: system.remove_child("root/b", timeout=1), timeout=2)
    with pytest.raises(DeadlockError):
        address.ask(lambda _probe: system.stop(timeout=1), timeout=2)


def test_the_tree_says_how_everyone_is(world: World) -> None:
    class Narrow(Probe):
        mailbox = MailboxSpec(bound=7)

    system = world.run(SupervisorSpec("nest", children=[ChildSpec("a", Narrow, args=(world,))]))
    root, nest, actor = system.tree()
    assert [(info.path, info.name, info.kind, info.parent) for info in (root, nest, actor)] == [
        ("root", "root", "Supervisor", None),
        ("root/nest", "nest", "Supervisor", "root"),
        ("root/nest/a", "a", "Narrow", "root/nest"),
    ]
    assert (actor.state, actor.depth, actor.bound, actor.handled, actor.last_message_at) == (
        "running",
        0,
        7,
        0,
        None,
    )
    address = system.address("root/nest/a")
    go = Event()
    asked = address.ask(lambda _probe: go.wait(), block=False)
    address.tell("waits")
    gevent.idle()
    before = time.time()
    busy = system.tree()[2]
    assert (busy.depth, address.depth) == (1, 1)
    assert busy.busy_seconds > 0
    assert busy.last_message_at is not None
    assert abs(busy.last_message_at - before) < 1
    go.set()
    asked.get(timeout=1)
    address.tell(failing(ValueError("x")))
    world.wait_for(Restarted, "root/nest/a")
    after = system.tree()[2]
    assert (after.handled, after.failures, after.restarts) == (2, 1, 1)
    assert after.last_failure == "message: ValueError('x')"
    assert after.busy_seconds >= busy.busy_seconds


def test_events_come_in_order_and_a_failing_subscriber_costs_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    system = world.make(spec(world, "a"))

    def fail(_event: object) -> None:
        raise RuntimeError("subscriber")

    system.subscribe(fail)
    seen: list[object] = []
    unsubscribe = system.subscribe(seen.append)
    with caplog.at_level(logging.CRITICAL + 1, "actors.runtime"):
        system.start(timeout=1)
        unsubscribe()
        unsubscribe()
        system.stop(timeout=1)
    assert seen == [Started("root/a"), Started("root")]
    assert world.events == [Started("root/a"), Started("root"), Stopped("root/a"), Stopped("root")]


def test_dead_letters_are_counted_by_reason_and_the_last_are_kept(world: World) -> None:
    class Full(Probe):
        mailbox = MailboxSpec(bound=1, overflow=Overflow.REJECT)

    system = world.run(ChildSpec("full", Full, args=(world,)))
    full = system.address("root/full")
    full.tell("kept")
    with pytest.raises(MailboxFullError):
        full.tell("rejected")
    with pytest.raises(MailboxFullError):
        full.ask("rejected too", control=False, timeout=1)
    assert world.wait_for(DeadLettered, "root/full").message == "rejected"
    system.stop(timeout=1)
    with pytest.raises(pykka.ActorDeadError):
        full.tell("dead")
    with pytest.raises(pykka.ActorDeadError):
        full.tell_control("dead")
    counts = system.dead_letters.counts
    assert (counts["rejected"], counts["dead"]) == (2, 2)


def test_dead_letters_are_bounded() -> None:
    letters = DeadLetters(keep=2)
    for number in range(5):
        letters.add("root/a", number, "failed")
    assert letters.counts == {"failed": 5}
    assert [letter.message for letter in letters.last] == [3, 4]


def test_two_systems_do_not_know_each_other(world: World) -> None:
    world.run(spec(world, "a"))
    other = ActorSystem(SupervisorSpec("root", children=[spec(world, "a")]))
    other.start(timeout=1)
    other.stop(timeout=1)
    assert world.system is not None
    assert world.system.address("root/a").ask("there", timeout=1) == "there"
