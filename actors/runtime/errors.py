"""What the runtime raises beside Pykka's own `ActorDeadError` and `Timeout`.

ActorsError
├── DeadlockError       an actor waited for an answer of its own
├── MailboxFullError    a rejecting mailbox was full, or dropped the message
├── StartError          the system gave up, or its time was over, before all of it ran
└── UnknownPathError    no such place in the supervision tree
"""


class ActorsError(Exception):
    """Root of the runtime's exceptions."""


class DeadlockError(ActorsError):
    """An actor waited, in its own greenlet, for something that only that greenlet can do."""


class MailboxFullError(ActorsError):
    """A mailbox that does not hold its senders had no room for this message."""


class StartError(ActorsError):
    """The system did not come up: it gave up, or its time was over."""


class UnknownPathError(ActorsError, LookupError):
    """No actor or supervisor has this path."""
