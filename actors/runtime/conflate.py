"""The data lane of a conflating mailbox: in arrival order of keys, one message for each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any


class ConflatingQueue:
    """A deque of messages in which a newer message takes the place of the waiting one with its key."""

    def __init__(self, key: Callable[[Any], Hashable | None]) -> None:
        self._key = key
        # Not a plain dict: taking the first of that one again and again is quadratic.
        self._waiting: OrderedDict[Hashable, Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._waiting.values())

    def append(self, message: Any) -> None:
        """Put in the place of the message of this key, or at the end."""
        key = self._key(message)
        self._waiting[object() if key is None else (key,)] = message

    def has(self, message: Any) -> bool:
        """Does a message wait that `message` would replace?"""
        key = self._key(message)
        return key is not None and (key,) in self._waiting

    def popleft(self) -> Any:
        """Take the first."""
        return self._waiting.popitem(last=False)[1]

    def clear(self) -> None:
        """Take all."""
        self._waiting.clear()
