"""The two modes of MarketFlow; each is a namespace of its own for every message, key and row."""

from typing import Final, Literal, TypeAlias

Mode: TypeAlias = Literal["live", "test"]

LIVE: Final[Mode] = "live"
TEST: Final[Mode] = "test"
MODES: Final[tuple[Mode, ...]] = (LIVE, TEST)
