"""Any sequence of sends, takes and closing does to a mailbox what a few lists and rules say it does."""

from __future__ import annotations

from typing import Any

import gevent
import pykka
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actors.runtime import MailboxFullError, MailboxSpec, Overflow
from actors.runtime.mailbox import EMPTY, Mailbox

Message = tuple[int, int]


HOLDING = {Overflow.HOLD, Overflow.CONFLATE}


class MailboxMachine(RuleBasedStateMachine):
    """Compares a mailbox with lists: what waits, who is held, what was lost."""

    @initialize(
        bound=st.integers(1, 4), overflow=st.sampled_from(Overflow), drain=st.booleans(), from_within=st.booleans()
    )
    def make(self, bound: int, overflow: Overflow, drain: bool, from_within: bool) -> None:
        key = (lambda message: message[0]) if overflow is Overflow.CONFLATE else None
        self.lost: list[tuple[Message, str]] = []
        self.mailbox = Mailbox(
            MailboxSpec(bound=bound, overflow=overflow, drain=drain, conflate_key=key),
            "model",
            lambda message, reason: self.lost.append((message, reason)),
        )
        self.bound, self.overflow, self.drain = bound, overflow, drain
        self.data: list[Message] = []
        self.control: list[Message] = []
        self.held: list[tuple[gevent.Greenlet[..., Any], Message]] = []
        self.expected_lost: list[tuple[Message, str]] = []
        self.count = 0
        self.closed = False
        self.from_within = from_within

    @rule(key=st.integers(0, 5))
    def put(self, key: int) -> None:
        self.count += 1
        message = (key, self.count)
        if self.from_within:
            self.mailbox.consumer = gevent.getcurrent()
        sender = gevent.spawn(self._send, message) if not self.from_within else None
        outcome = self._send(message) if sender is None else None
        gevent.idle()
        if sender is not None and sender.dead:
            outcome = sender.value
        expected = self._model_put(message)
        if expected == "held":
            assert sender is not None
            assert not sender.dead
            self.held.append((sender, message))
        else:
            assert outcome == expected

    def _send(self, message: Message) -> str:
        try:
            self.mailbox.put(message)
        except MailboxFullError:
            return "rejected"
        except pykka.ActorDeadError:
            return "dead"
        return "sent"

    def _model_put(self, message: Message) -> str:
        if self.closed:
            self.expected_lost.append((message, "dead"))
            return "dead"
        if self._conflates(message):
            return "sent"
        if len(self.data) < self.bound or (self.from_within and self.overflow in HOLDING):
            self.data.append(message)
            return "sent"
        if self.overflow is Overflow.REJECT:
            self.expected_lost.append((message, "rejected"))
            return "rejected"
        if self.overflow is Overflow.DROP_OLDEST:
            self.expected_lost.append((self.data.pop(0), "dropped"))
            self.data.append(message)
            return "sent"
        return "held"

    def _conflates(self, message: Message) -> bool:
        keys = [waiting[0] for waiting in self.data]
        if self.overflow is Overflow.CONFLATE and message[0] in keys:
            self.data[keys.index(message[0])] = message
            return True
        return False

    @rule()
    def put_control(self) -> None:
        if not self.closed:
            self.count += 1
            self.mailbox.put_control((-1, self.count))
            self.control.append((-1, self.count))

    @rule()
    def take(self) -> None:
        taken = self.mailbox.take()
        if self.control:
            assert taken == self.control.pop(0)
            return
        if not self.data:
            assert taken is EMPTY
            return
        if self.drain:
            assert taken == self.data
            self.data = []
        else:
            assert taken == self.data.pop(0)
        while self.held and len(self.data) < self.bound:
            sender, message = self.held.pop(0)
            if not self._conflates(message):
                self.data.append(message)
            assert sender.get(timeout=1) == "sent"

    @rule()
    def kill_a_held_sender(self) -> None:
        if self.held:
            sender, _ = self.held.pop()
            sender.kill()

    @rule()
    def close(self) -> None:
        if self.count < 8:
            return
        self.mailbox.close()
        self.closed = True
        self.expected_lost += [(message, "stopped") for message in (*self.control, *self.data)]
        self.control, self.data = [], []
        for sender, message in self.held:
            assert sender.get(timeout=1) == "dead"
            self.expected_lost.append((message, "dead"))
        self.held = []

    @invariant()
    def nothing_else_is_lost_or_waits(self) -> None:
        if hasattr(self, "mailbox"):
            assert self.lost == self.expected_lost
            assert len(self.mailbox) == len(self.data)

    def teardown(self) -> None:
        if hasattr(self, "mailbox"):
            gevent.killall([sender for sender, _ in self.held])


MailboxMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMailbox = MailboxMachine.TestCase
