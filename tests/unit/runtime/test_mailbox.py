"""The mailbox: lanes, overflow policies, holding, closing."""

from __future__ import annotations

from typing import Any

import gevent
import pykka
import pytest

from actors.runtime import GeventFuture, MailboxFullError, MailboxSpec, Overflow
from actors.runtime.mailbox import EMPTY, FAIR_AFTER, Batch, Envelope, Mailbox


class Boxed:
    """A mailbox and what it discarded."""

    def __init__(self, **spec: Any) -> None:
        self.discarded: list[tuple[Any, str]] = []
        self.mailbox = Mailbox(
            MailboxSpec(**spec), "box", lambda message, reason: self.discarded.append((message, reason))
        )

    def take_all(self) -> list[Any]:
        return list(iter(self.mailbox.take, EMPTY))


def settle() -> None:
    """Let every greenlet that can run do so."""
    for _ in range(3):
        gevent.idle()


def test_data_comes_in_order() -> None:
    boxed = Boxed()
    for number in range(5):
        boxed.mailbox.put(number)
    assert boxed.take_all() == [0, 1, 2, 3, 4]


def test_control_overtakes_data() -> None:
    boxed = Boxed()
    boxed.mailbox.put("data")
    boxed.mailbox.put_control("control")
    assert boxed.take_all() == ["control", "data"]


def test_much_control_does_not_starve_data() -> None:
    boxed = Boxed()
    boxed.mailbox.put("data")
    for number in range(FAIR_AFTER + 5):
        boxed.mailbox.put_control(number)
    assert boxed.take_all().index("data") == FAIR_AFTER


def test_consumer_waits_for_a_message() -> None:
    boxed = Boxed()
    consumer = gevent.spawn(boxed.mailbox.wait)
    settle()
    assert not consumer.dead
    boxed.mailbox.put("late")
    consumer.get(timeout=1)
    assert boxed.mailbox.take() == "late"


def test_hold_keeps_senders_and_their_order_until_there_is_room() -> None:
    boxed = Boxed(bound=1)
    boxed.mailbox.put(0)
    senders = [gevent.spawn(boxed.mailbox.put, number) for number in (1, 2)]
    settle()
    assert not any(sender.dead for sender in senders)
    assert len(boxed.mailbox) == 1
    assert boxed.mailbox.take() == 0
    settle()
    assert [sender.dead for sender in senders] == [True, False]
    assert boxed.take_all() == [1, 2]
    gevent.joinall(senders, timeout=1, raise_error=True)


@pytest.mark.parametrize(("spec", "put"), [(0.01, None), (None, 0.01), (60.0, 0.01), (0.01, 60.0), (None, 0)])
def test_holding_ends_after_the_shorter_timeout(spec: float | None, put: float | None) -> None:
    boxed = Boxed(bound=1, hold_timeout=spec)
    boxed.mailbox.put("there")
    with pytest.raises(pykka.Timeout):
        boxed.mailbox.put("too late", put)
    assert boxed.take_all() == ["there"]


def test_a_senders_own_timeout_is_not_taken_for_the_mailboxs() -> None:
    boxed = Boxed(bound=1)
    boxed.mailbox.put("there")
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        boxed.mailbox.put("held", 60)
    assert boxed.take_all() == ["there"]


def test_a_killed_sender_leaves_nothing_behind() -> None:
    boxed = Boxed(bound=1)
    boxed.mailbox.put("there")
    sender = gevent.spawn(boxed.mailbox.put, "held")
    settle()
    sender.kill()
    assert boxed.take_all() == ["there"]


def test_the_consumer_is_never_held() -> None:
    boxed = Boxed(bound=1)
    boxed.mailbox.consumer = gevent.getcurrent()
    for number in range(3):
        boxed.mailbox.put(number)
    assert boxed.take_all() == [0, 1, 2]


def test_reject_raises_and_counts() -> None:
    boxed = Boxed(bound=1, overflow=Overflow.REJECT)
    boxed.mailbox.put("first")
    with pytest.raises(MailboxFullError):
        boxed.mailbox.put("second")
    assert boxed.take_all() == ["first"]
    assert boxed.discarded == [("second", "rejected")]


def test_drop_oldest_makes_room() -> None:
    boxed = Boxed(bound=2, overflow=Overflow.DROP_OLDEST)
    for number in range(4):
        boxed.mailbox.put(number)
    assert boxed.take_all() == [2, 3]
    assert boxed.discarded == [(0, "dropped"), (1, "dropped")]


def test_a_dropped_ask_is_answered() -> None:
    boxed = Boxed(bound=1, overflow=Overflow.DROP_OLDEST)
    future: GeventFuture[Any] = GeventFuture()
    boxed.mailbox.put(Envelope("question", future))
    boxed.mailbox.put("newer")
    with pytest.raises(MailboxFullError):
        future.get(timeout=1)
    assert boxed.discarded == [("question", "dropped")]


def test_conflate_replaces_in_place() -> None:
    boxed = Boxed(bound=8, overflow=Overflow.CONFLATE, conflate_key=lambda message: message[0])
    for message in ["a1", "b1", "a2"]:
        boxed.mailbox.put(message)
    assert boxed.take_all() == ["a2", "b1"]
    assert boxed.discarded == []


def test_conflate_wakes_the_consumer() -> None:
    boxed = Boxed(overflow=Overflow.CONFLATE, conflate_key=lambda message: message)
    consumer = gevent.spawn(boxed.mailbox.wait)
    settle()
    boxed.mailbox.put("a")
    consumer.get(timeout=1)


def test_what_has_no_key_is_not_conflated() -> None:
    boxed = Boxed(bound=8, overflow=Overflow.CONFLATE, conflate_key=lambda _message: None)
    boxed.mailbox.put("same")
    boxed.mailbox.put("same")
    assert boxed.take_all() == ["same", "same"]


def test_a_full_conflating_mailbox_holds_new_keys_only() -> None:
    boxed = Boxed(bound=1, overflow=Overflow.CONFLATE, conflate_key=lambda message: message[0])
    boxed.mailbox.put("a1")
    boxed.mailbox.put("a2")
    with pytest.raises(pykka.Timeout):
        boxed.mailbox.put("b1", 0.01)
    assert boxed.take_all() == ["a2"]


def test_drain_takes_all_that_waits_but_asks_singly_and_in_order() -> None:
    boxed = Boxed(drain=True)
    ask = Envelope("question", GeventFuture())
    for item in [1, 2, ask, 3]:
        boxed.mailbox.put(item)
    taken = boxed.take_all()
    assert taken == [[1, 2], ask, [3]]
    assert [type(item) for item in taken] == [Batch, Envelope, Batch]


def test_drain_lets_held_senders_in() -> None:
    boxed = Boxed(bound=2, drain=True)
    boxed.mailbox.put(0)
    boxed.mailbox.put(1)
    senders = [gevent.spawn(boxed.mailbox.put, number) for number in (2, 3, 4)]
    settle()
    assert boxed.mailbox.take() == [0, 1]
    settle()
    assert [sender.dead for sender in senders] == [True, True, False]
    assert boxed.take_all() == [[2, 3], [4]]


def test_close_fails_askers_and_held_senders_and_refuses_the_rest() -> None:
    boxed = Boxed(bound=1)
    data: GeventFuture[Any] = GeventFuture()
    control: GeventFuture[Any] = GeventFuture()
    boxed.mailbox.put(Envelope("waits", data))
    boxed.mailbox.put_control(Envelope("query", control))
    sender = gevent.spawn(boxed.mailbox.put, "held")
    settle()
    boxed.mailbox.close()
    boxed.mailbox.close()
    for future in (data, control):
        with pytest.raises(pykka.ActorDeadError):
            future.get(timeout=1)
    with pytest.raises(pykka.ActorDeadError):
        sender.get(timeout=1)
    with pytest.raises(pykka.ActorDeadError):
        boxed.mailbox.put("after")
    with pytest.raises(pykka.ActorDeadError):
        boxed.mailbox.put_control("after")
    assert sorted(boxed.discarded) == [
        ("after", "dead"),
        ("after", "dead"),
        ("held", "dead"),
        ("query", "stopped"),
        ("waits", "stopped"),
    ]
    assert boxed.take_all() == []


@pytest.mark.parametrize(
    "spec",
    [
        {"bound": 0},
        {"overflow": Overflow.CONFLATE},
        {"conflate_key": str},
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"mailbox|conflate"):
        MailboxSpec(**spec)
