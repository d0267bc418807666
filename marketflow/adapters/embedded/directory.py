"""The data directory: one owner at a time, no process left over from another, and a place for its sockets."""

import fcntl
import hashlib
import os
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import structlog

from marketflow.errors import StartupError

_log = structlog.get_logger(component="embedded")

_SOCKET_PATH_LIMIT = 107
_LONGEST_NAME = len("/postgres/.s.PGSQL.5432.lock")


class InUse(StartupError):
    """Another MarketFlow has the data directory."""


class DataDirectory:
    """A data directory that this process owns until it is released."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def acquire(self) -> None:
        """Take it. Raises InUse when another MarketFlow has it, StartupError when it cannot be used."""
        try:
            # Root's PostgreSQL runs as another user, who must get through here.
            self.path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
            lock = (self.path / "lock").open("a")
            os.fchmod(lock.fileno(), 0o600)  # who can open it can lock it
        except OSError as error:
            raise StartupError(f"the data directory {self.path} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise InUse(f"another MarketFlow uses the data directory {self.path}") from None
        except OSError as error:
            lock.close()
            raise StartupError(f"the data directory {self.path} cannot be locked: {error.strerror}") from None
        self._lock = lock

    def release(self) -> None:
        """Give it back; harmless when it is not held."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def sockets(self) -> Path:
        """Return the directory for sockets: in the data directory, or a short one of this user's where that is too deep
        for the name of a socket."""
        inside = self.path / "run"
        if len(os.fsencode(inside)) + _LONGEST_NAME <= _SOCKET_PATH_LIMIT:
            directory = inside
        else:
            name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
            directory = _runtime_directory() / f"marketflow-{os.geteuid()}-{name}"
        directory.mkdir(mode=0o711, exist_ok=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise StartupError(f"{directory} belongs to somebody else; remove it")
        return directory


def _runtime_directory() -> Path:
    named = os.environ.get("XDG_RUNTIME_DIR")
    return Path(named) if named and os.access(named, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def stop_leftovers(program: str, directory: Path, gentle: signal.Signals, timeout: float = 10.0) -> None:
    """Stop the processes of `program` that still work in `directory`. Who started them is gone: we hold its lock."""
    left = set(_holders(program, directory))
    if not left:
        return
    _log.warning("stops a server that an earlier run left behind", program=program, pids=sorted(left))
    # Only the one that started the others: they mean something else by the signal, and go with it.
    _signal_all({pid for pid in left if _parent(pid) not in left}, gentle)
    if not _gone(program, directory, timeout):
        _signal_all(set(_holders(program, directory)), signal.SIGKILL)
        if not _gone(program, directory, timeout):
            raise StartupError(f"a {program} that an earlier run left behind holds {directory} and cannot be stopped")


def _gone(program: str, directory: Path, timeout: float) -> bool:
    never = threading.Event()
    for _ in range(int(timeout / 0.05)):
        if not any(_holders(program, directory)):
            return True
        never.wait(0.05)
    return False


def _holders(program: str, directory: Path) -> Iterator[int]:
    """Yield the processes of a program whose working directory is `directory`, as a server's is its data directory."""
    wanted = str(directory.resolve())
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            executable = Path((entry / "exe").readlink().as_posix().removesuffix(" (deleted)"))
            if executable.name == program and str((entry / "cwd").readlink()) == wanted:
                yield int(entry.name)


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _signal_all(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
