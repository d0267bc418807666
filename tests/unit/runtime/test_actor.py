"""What an actor can do, in a system and by itself."""

from __future__ import annotations

import gc
import time
from typing import Any

import gevent
import pykka
import pytest
from gevent.event import Event
from pykka.messages import ProxyCall

from actors.runtime import (
    ActorSystem,
    Address,
    Cause,
    ChildSpec,
    DeadlockError,
    Failed,
    GeventActor,
    MailboxSpec,
    Restarted,
    SupervisorSpec,
    get_all,
)
from tests.support.actor_world import Probe, World, failing


class Drainer(Probe):
    mailbox = MailboxSpec(bound=8, drain=True)

    def on_drain(self, messages: list[Any]) -> None:
        if "bad" in messages:
            raise ValueError("bad batch")
        self.world.note(list(messages))


class Inner:
    pykka_traversable = True
    depth = 2

    def twice(self, value: int) -> int:
        return value * self.depth


class Outer(GeventActor):
    constant = "class"
    inner = Inner()

    def __init__(self) -> None:
        super().__init__()
        self.own = Inner()
        self.value = 1
        self._hidden = 2

    @property
    def doubled(self) -> int:
        return self.value * 2

    @classmethod
    def kind(cls) -> str:
        return cls.__name__


@pytest.fixture
def probe(world: World) -> Address[Any]:
    return world.run(ChildSpec("probe", Probe, args=(world,))).address("root/probe")


# -- sending and asking


def test_tell_ask_and_proxy(world: World, probe: Address[Any]) -> None:
    probe.tell("told")
    assert probe.ask("asked", timeout=1, control=False) == "asked"
    assert world.notes[1:] == ["told", "asked"]
    proxy = probe.proxy()
    assert proxy.echo(3).get(timeout=1) == 3
    assert proxy.value.get(timeout=1) == "initial"
    proxy.value = "set"
    assert proxy.value.get(timeout=1) == "set"
    assert get_all([proxy.echo(number) for number in range(3)], timeout=1) == [0, 1, 2]


def test_what_is_sent_before_the_start_waits_for_it(world: World) -> None:
    system = world.make(ChildSpec("probe", Probe, args=(world,)))
    address = system.address("root/probe")
    proxy = address.proxy()
    address.tell("early")
    future = proxy.echo("early")
    system.start(timeout=1)
    assert future.get(timeout=1) == "early"
    world.wait_until(lambda: "early" in world.notes)


def test_asks_and_calls_overtake_data_and_defer_does_not(world: World, probe: Address[Any]) -> None:
    go = Event()
    probe.tell_control(lambda _probe: go.wait())
    probe.tell("data")
    probe.tell(ProxyCall(("on_receive",), ("sent",), {}))
    probe.proxy().on_receive.defer("deferred")
    probe.tell_control("control")
    asked = probe.ask("asked", block=False)
    go.set()
    asked.get(timeout=1)
    world.wait_until(lambda: "deferred" in world.notes)
    assert world.notes[1:] == ["control", "asked", "data", "sent", "deferred"]


def test_a_proxy_sees_what_pykkas_does(world: World) -> None:
    address = world.run(ChildSpec("outer", Outer)).address("root/outer")
    proxy = address.proxy()
    assert isinstance(proxy, pykka.ActorProxy)
    assert proxy.constant.get(timeout=1) == "class"
    assert proxy.doubled.get(timeout=1) == 2
    assert proxy.kind().get(timeout=1) == "Outer"
    assert proxy.inner.twice(4).get(timeout=1) == 8
    assert proxy.own.twice(5).get(timeout=1) == 10
    assert proxy.inner.depth.get(timeout=1) == 2
    assert proxy == address.proxy()
    assert proxy.inner != proxy
    assert "outer" in repr(proxy)
    for missing in ("nothing", "_hidden"):
        with pytest.raises(AttributeError):
            getattr(proxy, missing)


def test_a_callable_proxy_is_made_once(probe: Address[Any]) -> None:
    proxy = probe.proxy()
    assert proxy.echo is proxy.echo


def test_an_ask_gives_up_after_its_timeout(probe: Address[Any]) -> None:
    go = Event()
    probe.tell_control(lambda _probe: go.wait())
    with pytest.raises(pykka.Timeout):
        probe.ask("late", timeout=0.01)
    with pytest.raises(pykka.Timeout):
        probe.ask("late", timeout=0.01, control=False)
    go.set()


def test_the_timeout_of_an_ask_covers_being_held(world: World) -> None:
    class Narrow(Probe):
        mailbox = MailboxSpec(bound=1)

    narrow = world.run(ChildSpec("narrow", Narrow, args=(world,))).address("root/narrow")
    go = Event()
    narrow.tell(lambda _probe: go.wait())
    world.wait_until(lambda: narrow.depth == 0)
    narrow.tell("fills it")
    assert narrow.depth == 1
    began = time.monotonic()
    with pytest.raises(pykka.Timeout):
        narrow.ask("held", timeout=0.05, control=False)
    with pytest.raises(pykka.Timeout):
        narrow.tell("held", timeout=0.01)
    assert time.monotonic() - began < 1
    go.set()


def test_the_timeout_of_an_ask_is_for_being_held_and_answered_together(world: World) -> None:
    class Narrow(Probe):
        mailbox = MailboxSpec(bound=1)

    narrow = world.run(ChildSpec("narrow", Narrow, args=(world,))).address("root/narrow")
    room = Event()
    narrow.tell_control(lambda _probe: room.wait())
    narrow.tell(lambda _probe: Event().wait())
    gevent.spawn_later(0.4, room.set)
    began = time.monotonic()
    with pytest.raises(pykka.Timeout):
        narrow.ask("held, then late", timeout=0.5, control=False)
    assert 0.5 <= time.monotonic() - began < 0.85


def test_a_backlog_does_not_keep_others_from_running(world: World, probe: Address[Any]) -> None:
    def work(_probe: Probe) -> None:
        until = time.monotonic() + 0.002
        while time.monotonic() < until:
            pass

    for _ in range(20):
        probe.tell(work)
    probe.tell("last")
    gevent.spawn(world.note, "other")
    world.wait_until(lambda: "last" in world.notes)
    assert world.notes.index("other") < world.notes.index("last")


def test_a_self_send_does_not_deadlock_and_a_self_ask_says_so(world: World) -> None:
    class Narrow(Probe):
        mailbox = MailboxSpec(bound=1)

    narrow = world.run(ChildSpec("narrow", Narrow, args=(world,))).address("root/narrow")

    def send(probe: Probe) -> None:
        for number in range(3):
            probe.actor_ref.tell(number)

    narrow.ask(send, timeout=1)
    world.wait_until(lambda: world.notes[1:] == [0, 1, 2])
    with pytest.raises(DeadlockError):
        narrow.ask(lambda probe: probe.actor_ref.ask("myself"), timeout=1)
    with pytest.raises(DeadlockError):
        narrow.ask(lambda probe: probe.actor_ref.proxy().value.get(timeout=1), timeout=1)


# -- failing


def test_an_exception_to_an_asker_is_an_answer(world: World, probe: Address[Any]) -> None:
    with pytest.raises(KeyError, match="asked"):
        probe.ask(failing(KeyError("asked")), timeout=1)
    with pytest.raises(KeyError, match="called"):
        probe.proxy().fail(KeyError("called")).get(timeout=1)
    probe.proxy().fail.defer(KeyError("deferred"))
    assert world.wait_for(Failed, "root/probe").reason.cause is Cause.MESSAGE
    world.wait_for(Restarted, "root/probe")
    assert probe.ask("again", timeout=1) == "again"


def test_unless_the_spec_says_it_is_a_failure(world: World) -> None:
    spec = ChildSpec("probe", Probe, args=(world,), failures_from_ask=(LookupError,))
    probe = world.run(spec).address("root/probe")
    with pytest.raises(ValueError, match="harmless"):
        probe.ask(failing(ValueError("harmless")), timeout=1)
    with pytest.raises(KeyError):
        probe.ask(failing(KeyError("asked")), timeout=1)
    assert world.wait_for(Failed, "root/probe").reason.cause is Cause.CALL
    assert world.system is not None
    assert world.system.dead_letters.counts == {"failed": 1}


@pytest.mark.parametrize("error", [gevent.Timeout(1), gevent.GreenletExit(), SystemExit(3), BaseException("odd")])
def test_a_base_exception_fails_its_actor_and_no_other(world: World, error: BaseException) -> None:
    children = [ChildSpec(name, Probe, args=(world,)) for name in ("probe", "other")]
    system = world.run(*children)
    probe, other = system.address("root/probe"), system.address("root/other")
    with pytest.raises(pykka.ActorDeadError) as caught:
        probe.ask(failing(error), timeout=1)
    assert caught.value.__cause__ is error
    reason = world.wait_for(Failed, "root/probe").reason
    assert reason.exception is error
    assert reason.cause is (Cause.KILLED if isinstance(error, gevent.GreenletExit) else Cause.CALL)
    assert ("failure", "probe", type(error)) in world.notes
    probe.tell(failing(error))
    world.wait_for(Restarted, "root/probe", 2)
    assert probe.ask("again", timeout=1) == "again"
    assert other.ask("there", timeout=1) == "there"
    assert {info.path: info.restarts for info in system.tree()} == {"root": 0, "root/probe": 2, "root/other": 0}


def test_a_timeout_left_running_by_a_handler_fails_its_actor_only(world: World, probe: Address[Any]) -> None:
    probe.tell(lambda _probe: gevent.Timeout(0.01).start())
    assert world.wait_for(Failed, "root/probe").reason.cause is Cause.IDLE
    assert probe.ask("again", timeout=1) == "again"


def test_a_killed_greenlet_is_a_failure(world: World, probe: Address[Any]) -> None:
    greenlets = [probe.ask(lambda _probe: gevent.getcurrent(), timeout=1)]
    greenlets[0].kill()
    assert world.wait_for(Failed, "root/probe").reason.cause is Cause.KILLED
    busy = Event()

    def work(_probe: Probe) -> None:
        greenlets.append(gevent.getcurrent())
        busy.set()
        Event().wait()

    probe.tell(work)
    busy.wait(timeout=1)
    greenlets[1].kill()
    world.wait_for(Failed, "root/probe", 2)
    world.wait_for(Restarted, "root/probe", 2)
    assert probe.ask("again", timeout=1) == "again"
    assert world.system is not None
    assert [letter.message for letter in world.system.dead_letters.last] == [work]


def test_a_failing_hook_changes_nothing_for_others(world: World) -> None:
    class Clumsy(Probe):
        def on_failure(self, *_args: Any) -> None:
            raise RuntimeError("clumsy")

        def on_stop(self) -> None:
            raise RuntimeError("clumsier")

    system = world.run(ChildSpec("clumsy", Clumsy, args=(world,)))
    clumsy = system.address("root/clumsy")
    clumsy.tell(failing(KeyError("first")))
    assert isinstance(world.wait_for(Failed, "root/clumsy").reason.exception, KeyError)
    assert clumsy.stop(timeout=1)
    assert world.wait_for(Failed, "root/clumsy", 2).reason.cause is Cause.STOP
    assert clumsy.ask("again", timeout=1) == "again"


# -- draining


def test_a_draining_actor_gets_all_that_waits_and_asks_one_by_one(world: World) -> None:
    drainer = world.run(ChildSpec("drainer", Drainer, args=(world,))).address("root/drainer")
    go = Event()
    drainer.tell_control(lambda _probe: go.wait())
    for number in range(5):
        drainer.tell(number)
    asked = drainer.ask("asked", block=False, control=False)
    go.set()
    asked.get(timeout=1)
    assert world.notes[1:] == [[0, 1, 2, 3, 4], "asked"]
    assert world.system is not None
    assert world.system.tree()[1].handled == 7


def test_a_failing_batch_is_lost_message_by_message(world: World) -> None:
    system = world.run(ChildSpec("drainer", Drainer, args=(world,)))
    drainer = system.address("root/drainer")
    for message in ("good", "bad"):
        drainer.tell(message)
    world.wait_for(Restarted, "root/drainer")
    drainer.tell("next")
    world.wait_until(lambda: ["next"] in world.notes)
    assert [letter.message for letter in system.dead_letters.last] == ["good", "bad"]


# -- child greenlets, timers


def test_child_greenlets_end_before_on_stop(world: World, probe: Address[Any]) -> None:
    def child() -> None:
        try:
            Event().wait()
        finally:
            world.note("child ended")

    assert world.system is not None
    greenlet = probe.ask(lambda actor: actor.spawn(child), timeout=1)
    gevent.idle()
    world.system.stop(timeout=1)
    assert greenlet.dead
    assert world.notes[1:] == ["child ended", ("stop", "probe")]


def test_a_failing_child_greenlet_fails_its_actor(world: World, probe: Address[Any]) -> None:
    probe.tell(lambda actor: actor.spawn(actor.fail, KeyError("child")))
    reason = world.wait_for(Failed, "root/probe").reason
    assert reason.cause is Cause.CHILD
    assert isinstance(reason.exception, KeyError)
    world.wait_for(Restarted, "root/probe")


@pytest.mark.parametrize("begun", [True, False])
def test_a_child_greenlet_killed_from_outside_fails_its_actor(world: World, probe: Address[Any], begun: bool) -> None:
    child = probe.ask(lambda actor: actor.spawn(Event().wait), timeout=1)
    if begun:
        gevent.idle()
    child.kill()
    assert world.wait_for(Failed, "root/probe").reason.cause is Cause.CHILD


def test_an_actor_may_kill_its_own_child_greenlets(world: World, probe: Address[Any]) -> None:
    def replace(actor: Probe) -> None:
        child = actor.spawn(Event().wait)
        gevent.idle()
        child.kill()
        sibling = actor.spawn(Event().wait)
        actor.spawn(sibling.kill)
        actor.spawn(world.note, "done")

    probe.tell(replace)
    world.wait_until(lambda: "done" in world.notes)
    gevent.idle()
    assert probe.ask(lambda actor: len(actor._children), timeout=1) == 0
    assert world.system is not None
    assert world.system.tree()[1].failures == 0


def test_timers_deliver_to_their_own_actor(world: World, probe: Address[Any]) -> None:
    probe.tell(lambda actor: actor.after(0.001, "once"))
    probe.tell(lambda actor: actor.every(0.005, "again"))
    world.wait_until(lambda: world.notes.count("again") >= 3 and "once" in world.notes)
    assert world.notes.count("once") == 1


def test_a_cancelled_timer_is_silent_even_when_it_has_fired(world: World, probe: Address[Any]) -> None:
    def cancel_late(actor: Probe) -> None:
        timer = actor.after(0.001, "cancelled")
        Event().wait(0.02)
        timer.cancel()

    probe.ask(cancel_late, timeout=1)
    probe.ask("settled", timeout=1)
    assert "cancelled" not in world.notes


def test_ticks_do_not_pile_up(world: World, probe: Address[Any]) -> None:
    def slow(actor: Probe) -> None:
        actor.every(0.001, "tick")
        Event().wait(0.05)

    probe.ask(slow, timeout=1)
    probe.ask(lambda actor: actor.world.note("after"), timeout=1)
    assert world.notes[: world.notes.index("after")].count("tick") <= 1


def test_timers_end_with_the_life_of_the_actor(world: World, probe: Address[Any]) -> None:
    timers = [
        probe.ask(lambda actor: actor.every(0.001, "tick"), timeout=1),
        probe.ask(lambda actor: actor.after(60, "later"), timeout=1),
    ]
    probe.tell(failing(ValueError("end")))
    world.wait_for(Restarted, "root/probe")
    assert all(timer.cancelled for timer in timers)
    ticks = world.notes.count("tick")
    Event().wait(0.01)
    probe.ask("settled", timeout=1)
    assert world.notes.count("tick") == ticks


def test_a_timer_needs_time(probe: Address[Any]) -> None:
    for wrong in (lambda actor: actor.every(0, "x"), lambda actor: actor.after(-1, "x")):
        with pytest.raises(ValueError, match="future"):
            probe.ask(wrong, timeout=1)


# -- alone


def test_an_actor_alone_is_a_pykka_actor(world: World) -> None:
    ref = Probe.start(world, "alone")
    assert pykka.ActorRegistry.get_all() == [ref]
    assert ref.proxy().echo(1).get(timeout=1) == 1
    assert ref.is_alive()
    assert ref.stop(timeout=1)
    assert not ref.is_alive()
    assert not ref.stop(timeout=1)
    assert pykka.ActorRegistry.get_all() == []
    assert world.notes == [("start", "alone"), ("stop", "alone")]
    with pytest.raises(pykka.ActorDeadError):
        ref.tell("late")
    with pytest.raises(pykka.ActorDeadError):
        ref.ask("late", timeout=1)


def test_stop_overtakes_what_waits_and_fails_it(world: World) -> None:
    ref = Probe.start(world, "alone")
    go = Event()
    ref.tell_control(lambda _probe: go.wait())
    waiting = ref.ask("never", block=False, control=False)
    stopped = ref.stop(block=False)
    go.set()
    assert stopped.get(timeout=1)
    with pytest.raises(pykka.ActorDeadError):
        waiting.get(timeout=1)
    assert "never" not in world.notes


def test_an_actor_alone_that_fails_is_dead(world: World) -> None:
    for error in (ValueError("x"), gevent.Timeout(1)):
        ref, other = Probe.start(world, "alone"), Probe.start(world, "other")
        ref.tell(failing(error))
        with pytest.raises(pykka.ActorDeadError):
            ref.ask("late", timeout=1, control=False)
        assert other.ask("there", timeout=1) == "there"
        assert pykka.ActorRegistry.get_all() == [other]
        other.stop(timeout=1)


def test_an_actor_stops_itself_and_from_another_greenlet(world: World) -> None:
    ref = Probe.start(world, "alone")
    ref.tell(lambda actor: actor.stop())
    world.wait_until(lambda: ("stop", "alone") in world.notes)
    ref = Probe.start(world, "second")
    actor = ref.ask(lambda actor: actor, timeout=1)
    actor.stop()
    world.wait_until(lambda: ("stop", "second") in world.notes)


def test_pykkas_stop_all_leaves_systems_alone(world: World, probe: Address[Any]) -> None:
    ref = Probe.start(world, "alone")
    assert pykka.ActorRegistry.stop_all(timeout=1) == [True]
    assert not ref.is_alive()
    assert probe.ask("there", timeout=1) == "there"


def test_nothing_is_left_of_an_ended_system(world: World) -> None:
    def greenlets() -> int:
        return sum(isinstance(thing, gevent.Greenlet) and not thing.dead for thing in gc.get_objects())

    def live() -> None:
        system = ActorSystem(SupervisorSpec("root", children=[ChildSpec("probe", Probe, args=(world,))]))
        system.start(timeout=1)
        probe = system.address("root/probe")
        probe.ask(lambda actor: (actor.spawn(Event().wait), actor.every(0.01, "tick"))[1], timeout=1)
        probe.tell(failing(ValueError("x")))
        probe.ask("again", timeout=1)
        assert system.stop(timeout=1).late == ()

    live()
    gc.collect()
    before = greenlets()
    for _ in range(5):
        live()
    gc.collect()
    assert greenlets() == before
