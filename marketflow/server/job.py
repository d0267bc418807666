"""What the parent process tells the gunicorn process, and what that reports back."""

import os
from contextlib import suppress
from typing import NamedTuple

from marketflow.adapters.embedded import Endpoints
from marketflow.config import Settings

READY = "ready"
FAILED = "failed"

NODE = "marketflow.node:build"


class Job(NamedTuple):
    """One run of gunicorn. It goes through a pipe, as it holds secrets."""

    settings: Settings
    endpoints: Endpoints
    build: str
    """Where the function is, `module:name`, that makes a node of the settings and the endpoints."""
    listener: int
    """The listening socket, an inherited file descriptor."""
    reports: int
    """Where to write reports, an inherited file descriptor."""


def report(channel: int, what: str, text: str = "") -> None:
    """Tell the parent that a worker serves, or why none can."""
    line = " ".join(f"{what} {text}".split())
    # One write of less than PIPE_BUF is never mixed with another worker's.
    # Nobody reads any more once one has failed.
    with suppress(BrokenPipeError):
        os.write(channel, line.encode("utf-8", "replace")[:2000] + b"\n")
