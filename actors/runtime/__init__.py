"""Pykka on gevent, supervised as in Erlang/OTP. It knows nothing of markets; docs/actors.md explains the model."""

from actors.runtime.actor import GeventActor
from actors.runtime.address import Address
from actors.runtime.cell import State, Terminated
from actors.runtime.dead_letters import DeadLetter, DeadLetters
from actors.runtime.errors import ActorsError, DeadlockError, MailboxFullError, StartError, UnknownPathError
from actors.runtime.events import (
    Cause,
    DeadLettered,
    Escalated,
    Failed,
    Failure,
    Lifecycle,
    Restarted,
    Started,
    Stopped,
    Stuck,
)
from actors.runtime.future import GeventFuture, get_all
from actors.runtime.mailbox import MailboxSpec, Overflow
from actors.runtime.shutdown import CoordinatedShutdown, Phase, PhaseReport
from actors.runtime.specs import Backoff, ChildSpec, Intensity, Restart, Strategy, SupervisorSpec
from actors.runtime.system import ActorInfo, ActorSystem, StopReport

__all__ = [
    # what you write
    "GeventActor", "MailboxSpec", "Overflow",
    # how it is kept running
    "ActorSystem", "ChildSpec", "SupervisorSpec", "Restart", "Strategy", "Intensity", "Backoff",
    # how it is spoken to
    "Address", "GeventFuture", "get_all", "Terminated",
    # what it tells
    "ActorInfo", "State", "DeadLetters", "DeadLetter", "Cause", "Failure",
    "Lifecycle", "Started", "Stopped", "Failed", "Restarted", "Escalated", "Stuck", "DeadLettered",
    # how it ends
    "CoordinatedShutdown", "Phase", "PhaseReport", "StopReport",
    # what it raises, beside pykka.ActorDeadError and pykka.Timeout
    "ActorsError", "DeadlockError", "MailboxFullError", "StartError", "UnknownPathError",
]  # fmt: skip
