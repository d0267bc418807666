"""Asking the actors of a node: where they are, and an answer within a bounded time."""

from typing import Any, Final

from pykka import ActorDeadError, Timeout

from marketflow.errors import Unavailable

CACHE: Final = "root/cache"
AGGREGATOR: Final = "root/aggregator"
MODES: Final = "root/mode_supervisor"

ASK_SECONDS: Final = 1.0


def answer(future: Any, seconds: float = ASK_SECONDS) -> Any:
    """Return what an actor answers. Raises Unavailable when it does not within `seconds`."""
    try:
        return future.get(timeout=seconds)
    except (Timeout, ActorDeadError) as error:
        raise Unavailable("an actor does not answer; it is busy or being restarted") from error
