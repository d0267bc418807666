"""A sender that is killed while a full mailbox holds it: its message is in or it is not, and the sender knows which."""

import gevent
from gevent.event import Event

from actors.runtime.mailbox import Mailbox, MailboxSpec
from tests.support.waiting import let_greenlets_run


def full_mailbox() -> Mailbox:
    mailbox = Mailbox(MailboxSpec(bound=1), "root/mailbox", lambda _message, _reason: None)
    mailbox.put("first")
    return mailbox


def sender(mailbox: Mailbox, told: list[str]) -> "gevent.Greenlet[..., None]":
    def send() -> None:
        try:
            mailbox.put("second")
        except BaseException:
            told.append("not sent")
            raise
        told.append("sent")
        Event().wait(60)
        told.append("survived")

    greenlet = gevent.spawn(send)
    let_greenlets_run()
    assert mailbox.held
    return greenlet


def test_killed_before_there_is_room_it_has_not_sent() -> None:
    mailbox, told = full_mailbox(), list[str]()
    sender(mailbox, told).kill(timeout=1)
    assert told == ["not sent"]
    assert mailbox.take() == "first"
    assert not mailbox.data


def test_killed_when_its_message_is_in_already_it_has_sent_and_dies_then() -> None:
    mailbox, told = full_mailbox(), list[str]()
    greenlet = sender(mailbox, told)
    greenlet.kill(block=False)  # comes first, as it was scheduled first
    assert mailbox.take() == "first"  # lets the message in
    greenlet.join(timeout=1)
    assert greenlet.dead
    assert told == ["sent"]
    assert mailbox.take() == "second"
