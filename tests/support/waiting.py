"""Waiting for another thread or process: with a deadline; and for a fixed time only where time is what is tested."""

import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

import gevent.event

_never = Event()

T = TypeVar("T")

_PAUSE = 0.02  # seconds between two looks


def wait_until(look: Callable[[], T | None], what: str, timeout: float = 10.0) -> T:
    """Return what `look` finds as soon as it is true. Raises TimeoutError, which names `what`, after `timeout` s."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s, found {found!r}")
        _never.wait(_PAUSE)
    return found


def let_pass(seconds: float) -> None:
    """Let time go by where that is what is tested: a window ends, a guarantee is due."""
    _never.wait(seconds)


def greenlets_until(look: Callable[[], object], what: str, timeout: float = 10.0) -> None:
    """Let the other greenlets of this thread run until `look` is true. Raises TimeoutError as `wait_until` does."""
    deadline = time.monotonic() + timeout
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s")
        let_greenlets_run()


def let_greenlets_run(seconds: float = 0.001) -> None:
    """Let the other greenlets of this thread run for a moment."""
    gevent.event.Event().wait(seconds)
