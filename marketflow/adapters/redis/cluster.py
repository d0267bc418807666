"""What the nodes agree on through Redis: who is there, which mode is in force, who reads which feed."""

import os
import secrets
import socket
from collections.abc import Callable
from typing import Any

import redis
from redis.lock import Lock

from marketflow.adapters.redis import keys, wire
from marketflow.adapters.redis.client import answering, ask, unavailable
from marketflow.domain.mode import MODES, Mode
from marketflow.domain.view import Flush

STATUS_MS = 3_000
"""How long a node's status stays without being announced again, in ms."""

LEASE_S = 3.0
"""How long a lease stays without being renewed, in seconds."""

_QUIET_S = 0.5  # without a message for so long the listener asks whether the server still answers


def new_node_name() -> str:
    """Return a name that no other node has or had: where it runs, for people, and a random part."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class RedisCluster:
    """Implements `marketflow.ports.Cluster`."""

    def __init__(self, client: redis.Redis, node: str) -> None:
        self.node = node
        self.peers: frozenset[str] = frozenset()
        """The other nodes, as last heard."""
        self._client = client
        self._leases: dict[tuple[Mode, str], Lock] = {}

    def announce(self, status: bytes) -> dict[str, bytes]:
        """Set this node's status, which is gone three seconds after the last call; return the others' by node."""
        known, _, _, members = ask(
            self._client,
            [
                ("EXISTS", keys.node(self.node)),
                ("SET", keys.node(self.node), status, "PX", STATUS_MS),
                ("SADD", keys.NODES, self.node),
                ("SMEMBERS", keys.NODES),
            ],
        )
        if not known:
            ask(self._client, [("PUBLISH", keys.NODES, f"+{self.node}")])
        others = sorted({member.decode() for member in members} - {self.node})
        there = self._statuses(others)
        if len(there) < len(others):
            # One that announces itself at this moment comes back with its next call.
            ask(self._client, [("SREM", keys.NODES, *(name for name in others if name not in there))])
        self.peers = frozenset(there)
        return there

    def withdraw(self) -> None:
        """Remove this node's status at once."""
        ask(
            self._client,
            [
                ("DEL", keys.node(self.node)),
                ("SREM", keys.NODES, self.node),
                ("PUBLISH", keys.NODES, f"-{self.node}"),
            ],
        )

    def read_mode(self) -> Mode | None:
        """Return the mode that the nodes agreed on, None when there is none yet."""
        (value,) = ask(self._client, [("GET", keys.MODE)])
        return _mode(value)

    def write_mode(self, mode: Mode) -> None:
        """Set the mode for all nodes and tell them."""
        ask(self._client, [("SET", keys.MODE, mode), ("PUBLISH", keys.MODE, mode)])

    def lease(self, mode: Mode, exchange: str) -> bool:
        """Take, or renew, the right to read a feed for three seconds; False while another node holds it."""
        lock = self._leases.get((mode, exchange))
        with answering(self._client):
            if lock is not None:
                try:
                    return lock.reacquire()
                except redis.exceptions.LockNotOwnedError:
                    del self._leases[mode, exchange]
            lock = Lock(self._client, keys.lease(mode, exchange), LEASE_S, blocking=False, thread_local=False)
            taken = bool(lock.acquire(token=self.node))
        if taken:
            self._leases[mode, exchange] = lock
        return taken

    def release(self, mode: Mode, exchange: str) -> None:
        """Give a lease back, if this node holds it."""
        lock = self._leases.pop((mode, exchange), None)
        if lock is None:
            return
        with answering(self._client):
            try:
                lock.release()
            except redis.exceptions.LockNotOwnedError:
                return  # it had expired

    def _statuses(self, names: list[str]) -> dict[str, bytes]:
        if not names:
            return {}
        (states,) = ask(self._client, [("MGET", *map(keys.node, names))])
        return {name: state for name, state in zip(names, states, strict=True) if state is not None}

    def listen(
        self,
        on_flush: Callable[[Mode, Flush], None],
        on_mode: Callable[[Mode], None],
        on_peers: Callable[[], None],
    ) -> None:
        """Call back for what other nodes write, a change of mode, and nodes that came or went; until `Unavailable`.

        `on_peers` means as well that something may have been missed, and what is in Redis is to be read again: it is
        called once when the listening has begun, and `on_mode` with the mode in force.
        """
        with answering(self._client), self._client.pubsub() as pubsub:  # type: ignore[no-untyped-call]  # redis-py leaves it so
            listener = _Listener(self, pubsub, on_flush, on_mode, on_peers)
            while listener.step():
                pass
        raise unavailable(self._client, "it does not answer")


class _Listener:
    """One subscription to what the nodes tell each other."""

    def __init__(
        self,
        cluster: RedisCluster,
        pubsub: redis.client.PubSub,
        on_flush: Callable[[Mode, Flush], None],
        on_mode: Callable[[Mode], None],
        on_peers: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._pubsub = pubsub
        self._on_flush = on_flush
        self._on_mode = on_mode
        self._on_peers = on_peers
        self._heard: frozenset[str] = cluster.peers
        self._unconfirmed = 0
        self._asked = False
        self._subscribe([keys.MODE, keys.NODES, *map(keys.flush_channel, self._heard)])

    def step(self) -> bool:
        """Wait a while for a message and handle it; False when the server has been asked and did not answer."""
        self._follow_peers()
        message = self._pubsub.get_message(timeout=_QUIET_S)
        if message is None:
            if self._asked:
                return False
            self._pubsub.ping()
            self._asked = True
        else:
            self._asked = False
            self._handle(message)
        return True

    def _subscribe(self, channels: list[str]) -> None:
        self._pubsub.subscribe(*channels)
        self._unconfirmed += len(channels)

    def _follow_peers(self) -> None:
        """Listen to the peers that are known now."""
        peers = self._cluster.peers
        come, gone = peers - self._heard, self._heard - peers
        self._heard = peers
        if gone:
            self._pubsub.unsubscribe(*map(keys.flush_channel, gone))  # type: ignore[no-untyped-call]  # as above
        if come:
            self._subscribe([keys.flush_channel(name) for name in come])
        elif gone:
            self._on_peers()

    def _handle(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self._unconfirmed -= 1
            if self._unconfirmed == 0:
                self._read_again()
        elif message["type"] == "message":
            channel = message["channel"].decode()
            if channel == keys.MODE:
                self._tell_mode(message["data"])
            elif channel == keys.NODES:
                self._note_node(message["data"].decode())
            else:
                told = wire.decode(message["data"])
                if told is None:
                    self._on_peers()
                else:
                    self._on_flush(*told)

    def _read_again(self) -> None:
        """From here on nothing is missed; make up for what was said before."""
        mode = self._cluster.read_mode()
        if mode is not None:
            self._on_mode(mode)
        self._on_peers()

    def _tell_mode(self, value: bytes) -> None:
        mode = _mode(value)
        if mode is not None:
            self._on_mode(mode)

    def _note_node(self, message: str) -> None:
        sign, name = message[:1], message[1:]
        if sign == "+" and name != self._cluster.node:
            self._cluster.peers |= {name}
        elif sign == "-":
            self._cluster.peers -= {name}


def _mode(value: bytes | None) -> Mode | None:
    return next((mode for mode in MODES if value == mode.encode()), None)
