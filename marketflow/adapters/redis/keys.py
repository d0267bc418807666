"""The names of all keys and channels in Redis, and of the fields in its hashes."""

from marketflow.domain.mode import Mode

MODE = "marketflow:mode"
"""The mode in force (a string), and the channel that tells a change."""

NODES = "marketflow:nodes"
"""The names of the nodes (a set), and the channel that tells who came (`+name`) or went (`-name`)."""

CHECK = "marketflow:check"
"""Written once at a start, to learn whether writing is allowed."""


def latest(mode: Mode, symbol: str) -> str:
    """Hash: exchange -> JSON `{"price":…,"timestamp":…}`."""
    return f"marketflow:{mode}:latest:{symbol}"


def refreshed(mode: Mode) -> str:
    """Sorted set: `symbol:exchange` by the time of the last write (Unix ms); only where fields cannot expire."""
    return f"marketflow:{mode}:refreshed"


def series(mode: Mode, exchange: str, block: int) -> str:
    """Hash of the block of slices that starts at `block` (Unix ms): `symbol:number of the slice` -> record."""
    return f"marketflow:{mode}:series:{exchange}:{block}"


def series_since(mode: Mode) -> str:
    """Since when the series in this Redis is complete (Unix ms); lost with it."""
    return f"marketflow:{mode}:series_since"


def windows_key(mode: Mode, exchange: str) -> str:
    """Hash: `symbol:start` -> the journalled state of a window."""
    return f"marketflow:{mode}:windows:{exchange}"


def lease(mode: Mode, exchange: str) -> str:
    """The node that reads a feed (a string that expires)."""
    return f"marketflow:{mode}:lease:{exchange}"


def node(name: str) -> str:
    """The status of a node (a string that expires)."""
    return f"marketflow:node:{name}"


def flush_channel(name: str) -> str:
    """The channel on which a node tells what it wrote."""
    return f"marketflow:flush:{name}"


def split_field(field: bytes) -> tuple[str, int]:
    """Return the symbol and the number of a field `symbol:number`. Raises ValueError for another."""
    symbol, _, number = field.decode().rpartition(":")
    return symbol, int(number)
