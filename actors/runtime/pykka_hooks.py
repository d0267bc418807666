"""Every place where the runtime overrides or uses what Pykka calls private; nothing else does.

Known to hold for Pykka 4.5: an actor's `__init__` makes the inbox by `_create_actor_inbox` and sets
`_actor_ref`; `start` ends in `_start_actor_loop`; a stop is asked for by the message `_ActorStop`; futures come
from `_create_future`. Of Pykka's own loop nothing is used.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

import pykka
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from actors.runtime.future import GeventFuture

if TYPE_CHECKING:
    from actors.runtime.actor import GeventActor
    from actors.runtime.cell import Cell
    from actors.runtime.events import Failure

StopRequest = _ActorStop


class HookedActor(pykka.Actor):
    """A Pykka actor whose inbox, ref, futures and loop are those of its cell."""

    _cell: Cell | None = None

    def __init__(self) -> None:
        super().__init__()
        self._actor_ref = self._own_cell().address

    def _live(self) -> Failure | None:
        raise NotImplementedError

    def _own_cell(self) -> Cell:
        raise NotImplementedError

    def _create_actor_inbox(self) -> Any:  # type: ignore[override]  # Pykka calls it on the instance, and only there
        return self._own_cell().mailbox

    @staticmethod
    def _create_future() -> GeventFuture[Any]:
        return GeventFuture()

    def _start_actor_loop(self) -> None:
        self._own_cell().adopt(cast("GeventActor", self))

    def _dispatch(self, message: Any) -> Any:
        """What Pykka's `_handle_receive` does, but for `_ActorStop`, in the order of what is most frequent."""
        kind = type(message)
        if kind is ProxyCall:
            path = message.attr_path
            callee: Any = getattr(self, path[0]) if len(path) == 1 else functools.reduce(getattr, path, self)
            return callee(*message.args, **message.kwargs)
        if kind is ProxyGetAttr:
            return functools.reduce(getattr, message.attr_path, self)
        if kind is ProxySetAttr:
            owner = functools.reduce(getattr, message.attr_path[:-1], self)
            return setattr(owner, message.attr_path[-1], message.value)
        return self.on_receive(message)
