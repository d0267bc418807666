"""What a supervisor does when its children fail, end, or do not start."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pykka
import pytest
from gevent.event import Event

from actors.runtime import (
    ActorSystem,
    Address,
    Backoff,
    Cause,
    ChildSpec,
    Escalated,
    Failed,
    Failure,
    Intensity,
    Restart,
    Restarted,
    Started,
    StartError,
    Stopped,
    Strategy,
    Stuck,
    SupervisorSpec,
    Terminated,
)
from tests.support.actor_world import QUICK, Probe, World, failing


def spec(world: World, name: str, **options: Any) -> ChildSpec:
    return ChildSpec(name, Probe, args=(world,), **options)


def specs(world: World, names: str = "abcd", **options: Any) -> list[ChildSpec]:
    return [spec(world, name, **options) for name in names]


def boom(count: int = 1) -> list[Any]:
    """For `World.on_start`: so many failing starts."""

    def fail() -> None:
        raise OSError("cannot start")

    return [fail] * count


def state(system: ActorSystem, path: str) -> str:
    return next(info.state for info in system.tree() if info.path == path)


# -- order


def test_children_start_in_order_and_stop_in_reverse(world: World) -> None:
    system = world.run(*specs(world, "ab"), SupervisorSpec("nest", children=specs(world, "cd")), spec(world, "e"))
    report = system.stop(timeout=1)
    assert report.late == ()
    assert world.notes == [("start", name) for name in "abcde"] + [("stop", name) for name in "edcba"]
    assert {info.state for info in system.tree()} == {"stopped"}


def test_each_child_starts_when_the_one_before_it_runs(world: World) -> None:
    go = Event()
    world.on_start["a"] = [go.wait]
    system = world.make(*specs(world, "ab"))
    starter = gevent.spawn(system.start, timeout=1)
    world.wait_until(lambda: ("start", "a") in world.notes)
    gevent.idle()
    assert ("start", "b") not in world.notes
    assert [state(system, path) for path in ("root", "root/a", "root/b")] == ["starting", "starting", "new"]
    go.set()
    starter.get(timeout=1)
    assert ("start", "b") in world.notes


@pytest.mark.parametrize(
    ("strategy", "again"),
    [(Strategy.ONE_FOR_ONE, "b"), (Strategy.ONE_FOR_ALL, "abcd"), (Strategy.REST_FOR_ONE, "bcd")],
)
def test_a_strategy_restarts_its_group_in_order(world: World, strategy: Strategy, again: str) -> None:
    system = world.run(*specs(world), strategy=strategy)
    del world.notes[:]
    system.address("root/b").tell(failing(ValueError("b")))
    world.wait_for(Restarted, f"root/{again[-1]}")
    stops = [("stop", name) for name in reversed(again) if name != "b"]
    assert world.notes == [("failure", "b", ValueError), *stops, *(("start", name) for name in again)]
    assert {info.name: info.restarts for info in system.tree() if info.name != "root"} == {
        name: int(name in again) for name in "abcd"
    }


def test_failures_meanwhile_are_one_restart_of_the_larger_group(world: World) -> None:
    slow = Backoff(initial=0.05, jitter=0)
    system = world.run(*specs(world), strategy=Strategy.REST_FOR_ONE, backoff=slow)
    del world.notes[:]
    system.address("root/c").tell(failing(ValueError("c")))
    world.wait_for(Stopped, "root/d")
    system.address("root/a").tell(failing(ValueError("a")))
    world.wait_for(Restarted, "root/d")
    starts = [name for kind, name, *_ in world.notes if kind == "start"]
    assert starts == list("abcd")


def test_a_later_failing_start_does_not_restart_what_already_runs(world: World) -> None:
    system = world.run(*specs(world), strategy=Strategy.REST_FOR_ONE)
    del world.notes[:]
    world.on_start["c"] = boom(2)
    system.address("root/b").tell(failing(ValueError("b")))
    world.wait_for(Restarted, "root/d")
    assert [name for kind, name, *_ in world.notes if kind == "start"] == list("bcccd")


def test_failures_at_the_same_time_are_one_restart(world: World) -> None:
    system = world.run(*specs(world), strategy=Strategy.ONE_FOR_ALL, intensity=Intensity(1, 30))
    for name in "bd":
        system.address(f"root/{name}").tell(failing(ValueError(name)))
    world.wait_for(Restarted, "root/d")
    assert world.given_up == []
    assert {info.restarts for info in system.tree() if info.name != "root"} == {1}


def test_a_failure_in_the_drain_before_a_restart_does_not_stop_the_next_life(world: World) -> None:
    a, b = spec(world, "a"), spec(world, "b", drain_before_stop=True)
    system = world.run(a, b, strategy=Strategy.ONE_FOR_ALL)
    address = system.address("root/b")
    go = Event()
    address.tell_control(lambda _probe: go.wait())
    address.tell(failing(ValueError("in the drain")))
    address.tell("next life")
    gevent.idle()
    system.address("root/a").tell(failing(ValueError("a")))
    world.wait_until(lambda: state(system, "root/b") == "stopping")
    go.set()
    world.wait_for(Restarted, "root/b")
    assert address.ask("asked behind it", timeout=1, control=False) == "asked behind it"
    assert "next life" in world.notes
    assert ("stop", "b") not in world.notes
    assert system.tree()[2].restarts == 1


def test_pool_members_restart_without_each_other(world: World) -> None:
    go = Event()
    system = world.run(*specs(world))
    world.on_start["a"] = [go.wait]
    system.address("root/a").tell(failing(ValueError("a")))
    world.wait_until(lambda: world.notes.count(("start", "a")) == 2)
    system.address("root/b").tell(failing(ValueError("b")))
    world.wait_for(Restarted, "root/b")
    assert state(system, "root/a") == "starting"
    go.set()
    world.wait_for(Restarted, "root/a")


# -- who returns


@pytest.mark.parametrize(
    ("restart", "after_stop", "after_failure"),
    [(Restart.PERMANENT, True, True), (Restart.TRANSIENT, False, True), (Restart.TEMPORARY, False, False)],
)
def test_restart_types(world: World, restart: Restart, after_stop: bool, after_failure: bool) -> None:
    system = world.run(spec(world, "stops", restart=restart), spec(world, "fails", restart=restart))
    stops, fails = system.address("root/stops"), system.address("root/fails")
    assert stops.stop(timeout=1)
    fails.tell(failing(ValueError("x")))
    for address, returns in ((stops, after_stop), (fails, after_failure)):
        if returns:
            world.wait_for(Restarted, address.path)
            assert address.ask("again", timeout=1) == "again"
        else:
            world.wait_until(lambda address=address: not address.is_alive())  # type: ignore[misc]  # bound on purpose
            with pytest.raises(pykka.ActorDeadError):
                address.tell("late")
    there = {info.name for info in system.tree()}
    assert ("stops" in there) == (restart is not Restart.TEMPORARY)


def test_a_temporary_sibling_leaves_with_its_group(world: World) -> None:
    system = world.run(spec(world, "a"), spec(world, "b", restart=Restart.TEMPORARY), strategy=Strategy.ONE_FOR_ALL)
    temporary = system.address("root/b")
    system.address("root/a").tell(failing(ValueError("a")))
    world.wait_for(Restarted, "root/a")
    assert not temporary.is_alive()
    assert [info.path for info in system.tree()] == ["root", "root/a"]


def test_a_temporary_child_that_does_not_start_holds_up_nobody(world: World) -> None:
    world.on_start["a"] = boom()
    system = world.run(spec(world, "a", restart=Restart.TEMPORARY), spec(world, "b"))
    assert [info.path for info in system.tree()] == ["root", "root/b"]


# -- what survives


def test_mailbox_address_and_proxy_survive_and_the_failed_message_does_not(world: World) -> None:
    system = world.run(spec(world, "a"))
    address = system.address("root/a")
    proxy = address.proxy()
    assert proxy.echo(1).get(timeout=1) == 1
    bad = failing(ValueError("bad"))
    address.tell(bad)
    for number in range(3):
        address.tell(number)
    world.wait_for(Restarted, "root/a")
    assert proxy.echo(2).get(timeout=1) == 2
    address.ask("last", timeout=1, control=False)
    assert world.notes == [("start", "a"), ("failure", "a", ValueError), ("start", "a"), 0, 1, 2, "last"]
    (letter,) = system.dead_letters.last
    assert (letter.path, letter.message, letter.reason) == ("root/a", bad, "failed")
    assert system.dead_letters.counts == {"failed": 1}


def test_asks_wait_for_the_restarted_actor_as_long_as_their_timeout(world: World) -> None:
    system = world.run(spec(world, "a"))
    address = system.address("root/a")
    go = Event()
    world.on_start["a"] = [go.wait]
    address.tell(failing(ValueError("x")))
    world.wait_until(lambda: world.notes.count(("start", "a")) == 2)
    with pytest.raises(pykka.Timeout):
        address.ask("impatient", timeout=0.01)
    patient = address.ask("patient", block=False)
    go.set()
    assert patient.get(timeout=1) == "patient"


# -- starts that fail, backoff, intensity, escalation


@pytest.mark.parametrize("error", [OSError("x"), gevent.GreenletExit(), gevent.Timeout(1), BaseException("x")])
def test_a_failing_start_is_tried_again(world: World, error: BaseException) -> None:
    def fail() -> None:
        raise error

    world.on_start["a"] = [fail, fail]
    system = world.run(*specs(world, "ab"))
    assert world.wait_for(Failed, "root/a", 2).reason.cause is Cause.START
    assert world.notes.count(("failure", "a", type(error))) == 2
    info = {info.name: info for info in system.tree()}
    assert (info["a"].restarts, info["a"].failures, info["b"].restarts) == (2, 2, 0)
    assert world.notes.index(("start", "b")) > world.notes.index(("failure", "a", type(error)))


def test_a_failing_constructor_is_a_failing_start(world: World) -> None:
    class Picky(Probe):
        attempts: list[int] = []  # noqa: RUF012 - shared by the lives of the actor

        def __init__(self, world: World) -> None:
            super().__init__(world)
            self.attempts.append(1)
            if len(self.attempts) < 3:
                raise ValueError("not yet")

    system = world.run(ChildSpec("picky", Picky, args=(world,)))
    assert world.wait_for(Failed, "root/picky").reason.cause is Cause.START
    assert system.address("root/picky").ask("there", timeout=1) == "there"


def test_backoff_grows_with_failures_in_a_row_and_is_forgotten_after_calm(world: World) -> None:
    backoff = Backoff(initial=0.02, maximum=10, jitter=0, reset_after=0.1)
    world.on_start["a"] = boom(3)
    began = time.monotonic()
    system = world.run(spec(world, "a"), backoff=backoff)
    assert time.monotonic() - began >= 0.02 + 0.04 + 0.08
    Event().wait(0.11)
    began = time.monotonic()
    system.address("root/a").tell(failing(ValueError("x")))
    world.wait_for(Restarted, "root/a", 2)
    assert 0.02 <= time.monotonic() - began < 0.1


def test_more_restarts_than_the_intensity_escalate(world: World) -> None:
    nest = SupervisorSpec("nest", children=specs(world, "ab"), intensity=Intensity(2, 30), backoff=QUICK)
    system = world.run(spec(world, "before"), nest)
    address = system.address("root/nest/a")
    for number in range(3):
        address.tell(failing(ValueError(number)))
    address.tell("kept")
    reason = world.wait_for(Escalated, "root/nest").reason
    assert reason.cause is Cause.INTENSITY
    assert str(reason.exception) == "2"
    world.wait_for(Restarted, "root/nest")
    world.wait_until(lambda: "kept" in world.notes)
    info = {info.path: info for info in system.tree()}
    assert info["root/nest"].restarts == 1
    assert info["root/nest/a"].restarts == 3
    assert info["root/nest/b"].restarts == 1
    assert info["root/before"].restarts == 0
    assert world.given_up == []


def test_an_escalated_supervisor_begins_anew(world: World) -> None:
    children = [spec(world, "a"), spec(world, "once", restart=Restart.TEMPORARY)]
    system = world.run(SupervisorSpec("nest", children=children, intensity=Intensity(1, 30), backoff=QUICK))
    address, once = system.address("root/nest/a"), system.address("root/nest/once")
    for number in range(2):
        address.tell(failing(ValueError(number)))
    world.wait_for(Restarted, "root/nest")
    assert not once.is_alive()
    assert [info.path for info in system.tree()] == ["root", "root/nest", "root/nest/a"]
    address.tell(failing(ValueError("after it")))
    world.wait_until(lambda: system.tree()[2].failures == 3)
    assert address.ask("there", timeout=1) == "there"
    assert sum(isinstance(event, Escalated) for event in world.events) == 1


def test_the_root_gives_up_once_and_stops_all(world: World) -> None:
    system = world.run(*specs(world, "ab"), intensity=Intensity(1, 30))
    address = system.address("root/a")
    address.tell(failing(ValueError("first")))
    address.tell(failing(ValueError("second")))
    waiting = address.ask("never", block=False, control=False)
    world.wait_until(lambda: len(world.given_up) == 1)
    (failure,) = world.given_up
    assert isinstance(failure, Failure)
    assert str(failure.exception) == "second"
    assert ("stop", "b") in world.notes
    with pytest.raises(pykka.ActorDeadError):
        waiting.get(timeout=1)
    assert system.stop().late == ()


def test_a_start_that_gives_up_says_so(world: World) -> None:
    world.on_start["b"] = boom(9)
    system = world.make(*specs(world, "abc"), intensity=Intensity(2, 30))
    with pytest.raises(StartError) as caught:
        system.start(timeout=5)
    assert isinstance(caught.value.__cause__, OSError)
    world.wait_until(lambda: len(world.given_up) == 1)
    assert world.notes.count(("start", "b")) == 3
    assert ("start", "c") not in world.notes
    with pytest.raises(StartError):
        system.start()


def test_a_start_that_takes_too_long_names_what_does_not_run(world: World) -> None:
    world.on_start["b"] = [Event().wait]
    system = world.make(*specs(world, "abc"))
    with pytest.raises(StartError, match="root/b, root/c"):
        system.start(timeout=0.02)
    assert state(system, "root/a") == "running"


# -- stops that take long


def deaf(_probe: Probe) -> None:
    """Wait for ever, whatever happens."""
    while True:
        try:
            Event().wait()
        except gevent.GreenletExit:
            continue


def waits(_probe: Probe) -> None:
    Event().wait()


@pytest.mark.parametrize("handler", [waits, deaf])
def test_what_does_not_stop_in_time_is_killed_and_reported(
    world: World, monkeypatch: pytest.MonkeyPatch, handler: Any
) -> None:
    monkeypatch.setattr("actors.runtime.cell.KILL_GRACE", 0.02)
    system = world.run(spec(world, "a"), spec(world, "late", shutdown=0.02))
    asked = system.address("root/late").ask(handler, block=False)
    gevent.idle()
    report = system.stop(timeout=1)
    assert report.late == ("root/late",)
    assert report.seconds < 1
    assert ("stop", "a") in world.notes
    with pytest.raises(pykka.ActorDeadError):
        asked.get(timeout=1)
    assert system.stop() is report


def test_a_kill_that_is_not_heeded_leaves_the_life_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.runtime.cell.KILL_GRACE", 0.02)
    system = world.run(spec(world, "a", stuck_after=0.02, restart_stuck=True))
    address = system.address("root/a")
    go = Event()

    old: list[Any] = []

    def heedless(probe: Probe) -> None:
        old.append(gevent.getcurrent())
        while not go.is_set():
            try:
                go.wait()
            except gevent.GreenletExit:
                continue
        probe.world.note("the old life went on")

    address.tell(heedless)
    world.wait_for(Restarted, "root/a")
    go.set()
    world.wait_until(lambda: "the old life went on" in world.notes)
    assert gevent.wait(old, timeout=1) == old
    for number in range(5):
        assert address.ask(number, timeout=1) == number
    assert system.tree()[1].restarts == 1


def test_the_timeout_of_stop_is_for_the_whole_system(world: World) -> None:
    system = world.run(*specs(world, "abc"))
    for name in "abc":
        system.address(f"root/{name}").tell(waits)
    gevent.idle()
    began = time.monotonic()
    report = system.stop(timeout=0.1)
    assert report.late == ("root/c", "root/b", "root/a")
    assert time.monotonic() - began < 0.5


def test_a_stop_may_drain_first(world: World) -> None:
    system = world.run(spec(world, "drains", drain_before_stop=True), spec(world, "drops"))
    gate = Event()
    for name in ("drains", "drops"):
        address = system.address(f"root/{name}")
        address.tell_control(lambda _probe: gate.wait())
        for number in range(3):
            address.tell((name, number))
    gevent.idle()
    stopper = gevent.spawn(system.stop, timeout=1)
    gevent.idle()
    gate.set()
    assert stopper.get(timeout=2).late == ()
    assert [note for note in world.notes if note[0] in {"drains", "drops"}] == [("drains", n) for n in range(3)]
    assert system.dead_letters.counts == {"stopped": 3}


def test_who_stops_second_waits_and_gets_the_same_report(world: World) -> None:
    system = world.run(spec(world, "late", shutdown=0.05))
    system.address("root/late").tell(waits)
    gevent.idle()
    stoppers = [gevent.spawn(system.stop, timeout=1) for _ in range(2)]
    first, second = (stopper.get(timeout=2) for stopper in stoppers)
    assert first is second
    assert first.late == ("root/late",)


def test_stop_interrupts_a_backoff_and_a_start(world: World) -> None:
    system = world.run(*specs(world, "ab"), backoff=Backoff(initial=60, maximum=60))
    system.address("root/a").tell(failing(ValueError("x")))
    world.wait_until(lambda: state(system, "root/a") == "restarting")
    assert system.stop(timeout=1).late == ()
    assert world.notes[-1] == ("stop", "b")


def test_a_start_that_is_stopped_meanwhile_says_so(world: World) -> None:
    world.on_start["a"] = [Event().wait]
    system = world.make(spec(world, "a", shutdown=0.01))
    starter = gevent.spawn(pytest.raises, StartError, system.start, timeout=5)
    world.wait_until(lambda: ("start", "a") in world.notes)
    assert system.stop(timeout=1).late == ("root/a",)
    starter.get(timeout=1)


def test_stop_before_start_and_twice(world: World) -> None:
    system = world.make(spec(world, "a"))
    report = system.stop(timeout=1)
    assert system.stop(timeout=1) is report
    assert not system.address("root/a").is_alive()
    with pytest.raises(StartError):
        system.start()


# -- stuck


def test_a_stuck_actor_is_reported_once_for_each_message(world: World) -> None:
    system = world.run(spec(world, "a", stuck_after=0.02))
    address = system.address("root/a")
    for count in (1, 2):
        go = Event()
        address.tell(lambda _probe, go=go: go.wait())
        assert world.wait_for(Stuck, "root/a", count).seconds >= 0.02
        assert system.tree()[1].busy_seconds >= 0.02
        Event().wait(0.03)
        go.set()
        address.ask("done", timeout=1)
    assert sum(isinstance(event, Stuck) for event in world.events) == 2
    assert system.tree()[1].restarts == 0


def test_a_stuck_actor_is_restarted_if_its_spec_says_so(world: World) -> None:
    system = world.run(spec(world, "a", stuck_after=0.02, restart_stuck=True))
    address = system.address("root/a")
    asked = address.ask(waits, block=False)
    assert world.wait_for(Failed, "root/a").reason.cause is Cause.STUCK
    with pytest.raises(pykka.ActorDeadError):
        asked.get(timeout=1)
    world.wait_for(Restarted, "root/a")
    assert address.ask("again", timeout=1) == "again"


def test_a_stuck_start_is_restarted_too(world: World) -> None:
    world.on_start["a"] = [Event().wait]
    system = world.run(spec(world, "a", stuck_after=0.02, restart_stuck=True))
    assert world.wait_for(Failed, "root/a").reason.cause is Cause.STUCK
    assert system.tree()[1].restarts == 1


def test_waiting_for_messages_is_not_being_stuck(world: World) -> None:
    world.run(spec(world, "a", stuck_after=0.01))
    Event().wait(0.05)
    assert not any(isinstance(event, Stuck) for event in world.events)


# -- death watch


def watching(address: Address[Any]) -> Any:
    return lambda probe: probe.watch(address, lambda terminated: terminated) and None


def test_death_watch_tells_of_the_end_and_not_of_restarts(world: World) -> None:
    system = world.run(spec(world, "watcher"), spec(world, "watched", restart=Restart.TRANSIENT))
    watcher, watched = system.address("root/watcher"), system.address("root/watched")
    watcher.ask(watching(watched), timeout=1)
    watched.tell(failing(ValueError("x")))
    world.wait_for(Restarted, "root/watched")
    assert not any(isinstance(note, Terminated) for note in world.notes)
    watched.stop(timeout=1)
    world.wait_until(lambda: Terminated(watched, None) in world.notes)


def test_death_watch_of_one_already_dead(world: World) -> None:
    system = world.run(spec(world, "watcher"), spec(world, "watched", restart=Restart.TEMPORARY))
    watcher, watched = system.address("root/watcher"), system.address("root/watched")
    watched.tell(failing(ValueError("x")))
    world.wait_until(lambda: not watched.is_alive())
    watcher.ask(watching(watched), timeout=1)
    world.wait_until(lambda: any(isinstance(note, Terminated) for note in world.notes))
    (terminated,) = [note for note in world.notes if isinstance(note, Terminated)]
    assert terminated.reason is not None
    assert isinstance(terminated.reason.exception, ValueError)


def test_death_watch_ends_with_the_watcher_and_when_called_off(world: World) -> None:
    system = world.run(spec(world, "watcher"), spec(world, "watched", restart=Restart.TEMPORARY))
    watcher, watched = system.address("root/watcher"), system.address("root/watched")
    watcher.ask(watching(watched), timeout=1)
    watcher.tell(failing(ValueError("x")))
    world.wait_for(Restarted, "root/watcher")
    watch = watcher.ask(lambda probe: probe.watch(watched, lambda terminated: terminated), timeout=1)
    watch.cancel()
    watched.stop(timeout=1)
    world.wait_until(lambda: not watched.is_alive())
    watcher.ask("settled", timeout=1)
    assert not any(isinstance(note, Terminated) for note in world.notes)


def test_an_actor_alone_can_be_watched(world: World) -> None:
    watcher, watched = Probe.start(world, "watcher"), Probe.start(world, "watched")
    watcher.ask(watching(watched), timeout=1)
    watched.stop(timeout=1)
    world.wait_until(lambda: Terminated(watched, None) in world.notes)
    watcher.stop(timeout=1)


# -- a supervisor that is itself hit


def test_a_killed_supervisor_is_restarted_with_its_children(world: World) -> None:
    system = world.run(SupervisorSpec("nest", children=specs(world, "ab")))
    nest = system._find("root/nest")
    nest._greenlet.kill()  # type: ignore[union-attr]  # nobody should; it is seen all the same
    world.wait_for(Restarted, "root/nest")
    assert world.notes == [
        *(("start", name) for name in "ab"),
        *(("stop", name) for name in "ba"),
        *(("start", name) for name in "ab"),
    ]
    assert world.wait_for(Failed, "root/nest").reason.cause is Cause.KILLED
    assert world.wait_for(Started, "root/nest", 2)
