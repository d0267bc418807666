"""A program kept running beside MarketFlow: started, watched, started again when it dies, and stopped with it."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

import structlog

from marketflow.errors import StartupError

_log = structlog.get_logger(component="service")

_BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)
"""How long to wait before the next attempt; the last is kept. A program that ran for a minute starts over."""

_SETTINGS_PREFIX = "MARKETFLOW_"

LineLevel = Literal["debug", "info", "warning", "error"]


class Spec(NamedTuple):
    """What to run and how to get on with it."""

    name: str
    """What users know it as."""
    command: Callable[[], Sequence[str]]
    """Prepares a start and returns the command line. Raises StartupError for what no other attempt would mend."""
    ready: re.Pattern[str]
    """What the program says when it can serve."""
    ready_lines: int = 1
    """How many lines match `ready` before it can."""
    stop_signals: tuple[signal.Signals, ...] = (signal.SIGTERM,)
    """Ask it to stop with these, one after another; SIGKILL follows by itself."""
    privileges: Sequence[str] = ()
    """More arguments for setpriv: another user, capabilities."""
    environment: Mapping[str, str] | None = None
    """Its environment; None for ours without the settings."""
    level: Callable[[str], LineLevel] = lambda _line: "debug"
    """At which level a line it says is logged."""


class Service:
    """Runs a program and keeps it running. A thread of its own starts it and lives as long as it does: the kernel sends
    the program its first stop signal when that thread ends, so it never outlives a MarketFlow that was killed."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._decided = threading.Event()
        self._failure: str | None = None
        self._process: subprocess.Popen[str] | None = None
        self._said: deque[str] = deque(maxlen=20)
        self._ready: list[re.Match[str]] = []
        self._thread = threading.Thread(target=self._keep, name=f"service-{spec.name}", daemon=True)

    def start(self) -> None:
        """Begin to start it; returns at once."""
        self._thread.start()

    def wait_ready(self, timeout: float) -> list[re.Match[str]]:
        """Wait until it can serve and return what it said to that. Raises StartupError, with its own last words, when
        it ended before or takes longer than `timeout` seconds."""
        if not self._decided.wait(timeout):
            self._failure = f"it is not ready after {timeout:g} s: {self._last_words()}"
        if self._failure is not None:
            raise StartupError(f"{self._spec.name} did not start: {self._failure}")
        return list(self._ready)

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def ask_to_stop(self) -> None:
        """Send it the first stop signal; returns at once."""
        with self._lock:
            self._stopping.set()
        self._signal(self._spec.stop_signals[0])

    def stop(self, timeout: float) -> None:
        """Stop it, within `timeout` seconds and a moment; harmless when it does not run."""
        if not self._stopping.is_set():
            self.ask_to_stop()
        if not self._thread.is_alive():
            return
        self._thread.join(timeout * 0.8)
        for number in (*self._spec.stop_signals[1:], signal.SIGKILL):
            if not self._thread.is_alive():
                return
            _log.error("does not stop", service=self._spec.name, sent=number.name)
            self._signal(number)
            self._thread.join(timeout * 0.2)

    # -------------------------------------------------------------------------------------------- in its thread

    def _keep(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                status = self._run()
            except (StartupError, OSError) as error:
                status, reason = None, str(error)
            else:
                reason = f"{_ended(status)}: {self._last_words()}" if status is not None else ""
            if self._stopping.is_set():
                break
            if not self._decided.is_set():
                self._failure = reason
                self._decided.set()
                return
            attempt = 0 if time.monotonic() - began > 60 else attempt
            delay = _BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)]
            attempt += 1
            _log.error("ended by itself, starts again", service=self._spec.name, reason=reason, in_s=delay)
            self._stopping.wait(delay)

    def _run(self) -> int | None:
        """Run it once, to its end."""
        self._said.clear()
        self._ready.clear()
        prefix = with_parent(self._spec.stop_signals[0], self._spec.privileges)
        command = [*prefix, *self._spec.command()]
        with self._lock:
            if self._stopping.is_set():
                return None
            process = self._process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal reaches a whole process group; these are stopped by us, in order.
                start_new_session=True,
                cwd="/" if self._spec.environment is not None else None,
                env=without_settings() if self._spec.environment is None else self._spec.environment,
                encoding="utf-8",
                errors="replace",
            )
        with process, suppress(ValueError):
            assert process.stdout is not None  # noqa: S101 - it is a pipe, for the type checker
            for line in process.stdout:
                self._heard(line.rstrip())
        return process.wait()

    def _heard(self, line: str) -> None:
        if not line:
            return
        level = "debug" if self._stopping.is_set() else self._spec.level(line)
        self._said.append(line)
        if (match := self._spec.ready.search(line)) is not None and len(self._ready) < self._spec.ready_lines:
            self._ready.append(match)
            if len(self._ready) == self._spec.ready_lines:
                _log.info("is ready", service=self._spec.name, pid=self.pid)
                self._decided.set()
        _log.log(_LEVELS[level], line, service=self._spec.name)

    def _last_words(self) -> str:
        """Return the line that says best why it ended."""
        said = list(self._said)
        telling = [line for line in said if self._spec.level(line) in {"warning", "error"}]
        return (telling or said or ["it said nothing"])[-1]

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(self._process.pid, number)


_LEVELS: Mapping[LineLevel, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def with_parent(last_signal: signal.Signals, privileges: Sequence[str] = ()) -> list[str]:
    """Return what to put before a command line so that the kernel sends the program a signal when the thread that
    starts it ends; `privileges` are more arguments for setpriv. Raises StartupError where there is no setpriv."""
    program = shutil.which("setpriv")
    if program is None:
        raise StartupError("the program setpriv (package util-linux) is needed and not there")
    return [program, f"--pdeathsig={last_signal.name.removeprefix('SIG')}", *privileges, "--"]


def without_settings() -> dict[str, str]:
    """Return our environment without MarketFlow's settings: they may hold secrets, and anyone who may look at a child
    would see them there."""
    return {key: value for key, value in os.environ.items() if not key.startswith(_SETTINGS_PREFIX)}


def _ended(status: int) -> str:
    if status >= 0:
        return f"it ended with status {status}"
    with suppress(ValueError):
        return f"it was ended by {signal.Signals(-status).name}"
    return f"it was ended by signal {-status}"
