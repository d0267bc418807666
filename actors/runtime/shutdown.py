"""Coordinated shutdown: named phases, one after the other, each within its time."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent.event import Event

logger = logging.getLogger("actors.runtime")


@dataclasses.dataclass(frozen=True, slots=True)
class Phase:
    """Things to do at the same time, within `timeout` seconds together."""

    name: str
    timeout: float
    actions: Sequence[Callable[[], Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class PhaseReport:
    """How a phase went: its seconds, the actions (by name) that were late, and what others raised."""

    name: str
    seconds: float
    late: tuple[str, ...]
    errors: tuple[str, ...]


class CoordinatedShutdown:
    """Runs its phases once, whoever asks and however often; a late or failing action never holds up the next phase."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        self._phases = tuple(phases)
        self._reports: list[PhaseReport] = []
        self._begun = False
        self._done = Event()

    def run(self) -> list[PhaseReport]:
        """Go through the phases, or wait for who does; one report for each."""
        if not self._begun:
            self._begun = True
            try:
                self._reports += map(_run_phase, self._phases)
            finally:
                self._done.set()
        self._done.wait()
        return list(self._reports)


def _run_phase(phase: Phase) -> PhaseReport:
    began = time.monotonic()
    errors: list[str] = []
    gevent.get_hub().loop.update_now()  # timers count from the loop's own time, which a busy hub leaves behind
    running = {gevent.spawn(_run_action, action, errors): _name(action) for action in phase.actions}
    gevent.joinall(list(running), timeout=phase.timeout)
    late = tuple(name for greenlet, name in running.items() if not greenlet.dead)
    gevent.killall(list(running), block=False)
    if late:
        logger.error("Shutdown phase %s: not done within %s s: %s", phase.name, phase.timeout, ", ".join(late))
    return PhaseReport(phase.name, time.monotonic() - began, late, tuple(errors))


def _run_action(action: Callable[[], Any], errors: list[str]) -> None:
    try:
        action()
    except Exception as error:
        logger.exception("A shutdown action failed: %s", _name(action))
        errors.append(f"{_name(action)}: {error!r}")


def _name(action: Callable[[], Any]) -> str:
    return getattr(action, "__qualname__", repr(action))
