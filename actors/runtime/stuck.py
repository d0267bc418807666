"""Notices an actor that does not finish a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gevent
from gevent import get_hub

from actors.runtime.events import Cause, Stuck

if TYPE_CHECKING:
    from actors.runtime.cell import Cell

CHECKS = 4
"""How often, in the time allowed for a message, the actor is looked at."""


class StuckWatch:
    """Looks at one life of an actor, now and then; reports a message once. Sees waiting, not a busy thread."""

    def __init__(self, cell: Cell, stuck_after: float) -> None:
        self._cell = cell
        self._stuck_after = stuck_after
        self._reported = 0.0
        self._timer = get_hub().loop.timer(stuck_after / CHECKS, stuck_after / CHECKS)
        self._timer.start(self._look, update=True)

    def cancel(self) -> None:
        """Look no more."""
        self._timer.stop()
        self._timer.close()

    def _look(self) -> None:
        began = self._cell.began
        if began != self._reported and self._cell.in_hand > self._stuck_after:
            self._reported = began
            gevent.spawn(self._report, began)

    def _report(self, began: float) -> None:
        cell = self._cell
        cell.publish(Stuck(cell.path, cell.in_hand))
        if cell.spec.restart_stuck and cell.in_hand and cell.began == began:
            cell.kill(Cause.STUCK)
