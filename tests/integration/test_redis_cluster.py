"""Several nodes on one real server: who is there, the mode, the leases, and that no write is missed."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
import redis

from marketflow.adapters.clock import SystemClock
from marketflow.adapters.redis import RedisCluster, RedisPriceCache, cluster, connect, new_node_name
from marketflow.domain.mode import LIVE, TEST, Mode
from marketflow.domain.view import Flush, Latest
from marketflow.errors import Unavailable
from tests.support.valkey_server import ValkeyServer, running_valkey
from tests.support.waiting import wait_until

SYMBOL = "BTCUSDT"


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with running_valkey() as server:
        yield server


@dataclass
class Node:
    """One node's client, and what its listener was called with."""

    client: redis.Redis
    cluster: RedisCluster
    cache: RedisPriceCache
    flushes: list[tuple[Mode, Flush]] = field(default_factory=list)
    modes: list[Mode] = field(default_factory=list)
    peers_changed: int = 0
    started: threading.Event = field(default_factory=threading.Event)
    refused: float = 0.0
    on_peers: Callable[[], None] = lambda: None

    def others(self) -> dict[str, bytes]:
        return self.cluster.announce(b"status of " + self.cluster.node.encode())

    def listen(self) -> None:
        def changed() -> None:
            self.on_peers()
            self.peers_changed += 1
            self.started.set()

        try:
            self.cluster.listen(lambda mode, flush: self.flushes.append((mode, flush)), self.modes.append, changed)
        except Unavailable:
            self.refused = time.monotonic()

    def write(self, price: float, mode: Mode = LIVE) -> Flush:
        flush = Flush({SYMBOL: {self.cluster.node: Latest(price, 1)}}, {})
        self.cache.write(mode, flush)
        return flush


@contextmanager
def running_node(server: ValkeyServer, timeout: float = 5) -> Iterator[Node]:
    with connect(server.url, timeout=timeout) as client:
        cluster = RedisCluster(client, new_node_name())
        cache = RedisPriceCache(client, cluster, SystemClock(), series_retention=300_000, max_skew=60_000)
        yield Node(client, cluster, cache)


@contextmanager
def listening(server: ValkeyServer, *nodes: Node) -> Iterator[None]:
    """The nodes listen; the server must be killed or frozen for them to end, which the end of the context does."""
    threads = [threading.Thread(target=node.listen) for node in nodes]
    try:
        for thread, node in zip(threads, nodes, strict=True):
            node.started.clear()
            thread.start()
            assert node.started.wait(10)
        yield
    finally:
        server.kill()
        for thread in threads:
            thread.join()


@pytest.fixture
def a(server: ValkeyServer) -> Iterator[Node]:
    with running_node(server) as node:
        yield node


@pytest.fixture
def b(server: ValkeyServer) -> Iterator[Node]:
    with running_node(server) as node:
        yield node


def test_nodes_see_each_others_status_and_not_their_own(a: Node, b: Node) -> None:
    assert a.cluster.node != b.cluster.node
    assert a.others() == {}
    assert b.others() == {a.cluster.node: b"status of " + a.cluster.node.encode()}
    assert a.others() == {b.cluster.node: b"status of " + b.cluster.node.encode()}
    assert a.cluster.peers == {b.cluster.node}


def test_a_node_that_goes_is_gone_at_once(a: Node, b: Node) -> None:
    b.others()
    assert a.others()
    b.cluster.withdraw()
    assert a.client.smembers("marketflow:nodes") == {a.cluster.node.encode()}
    assert a.others() == {}
    b.others()
    assert a.others()


def test_a_node_that_dies_is_gone_with_its_status(a: Node, b: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "STATUS_MS", 300)
    b.others()
    assert a.others()
    wait_until(lambda: not a.others(), "the dead node is gone")
    assert a.client.smembers("marketflow:nodes") == {a.cluster.node.encode()}
    b.others()
    assert a.others()


def test_a_status_stays_for_three_seconds(a: Node) -> None:
    a.others()
    assert 2_000 < a.client.pttl(f"marketflow:node:{a.cluster.node}") <= 3_000


def test_a_node_hears_the_others_writes_and_not_its_own(server: ValkeyServer, a: Node, b: Node) -> None:
    for node in (a, b, a):
        node.others()
    with listening(server, a, b):
        told = b.write(2.0, TEST)
        told_too = Flush({}, {"e": {SYMBOL: {1763827200100: bytes(range(30))}}})
        b.cache.write(LIVE, told_too)
        wait_until(lambda: len(a.flushes) == 2, "both writes were heard")
        assert a.flushes == [(TEST, told), (LIVE, told_too)]
        a.write(3.0)
        wait_until(lambda: b.flushes, "the other's write was heard")
        assert len(a.flushes) == 2


def test_coming_and_going_is_heard_at_once(server: ValkeyServer, a: Node) -> None:
    a.others()
    with ExitStack() as stack, listening(server, a):
        b = stack.enter_context(running_node(server))
        before = a.peers_changed
        b.others()
        wait_until(lambda: a.peers_changed > before, "the newcomer was heard", timeout=0.4)
        assert a.cluster.peers == {b.cluster.node}
        told = b.write(1.0)  # b has not heard of a write by anybody: its first announcement told it of a
        wait_until(lambda: a.flushes == [(LIVE, told)], "the newcomer's write was heard")
        before = a.peers_changed
        b.cluster.withdraw()
        wait_until(lambda: a.peers_changed > before, "the leaving was heard", timeout=0.4)
        assert a.cluster.peers == frozenset()


def test_a_node_that_died_is_a_change_too(
    server: ValkeyServer, a: Node, b: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "STATUS_MS", 300)
    b.others()
    a.others()
    with listening(server, a):
        before = a.peers_changed
        wait_until(lambda: not a.others(), "the dead node is gone")
        wait_until(lambda: a.peers_changed > before, "the change was told")


def test_a_write_by_who_does_not_know_the_listener_makes_it_read_again(server: ValkeyServer, a: Node, b: Node) -> None:
    b.others()
    a.others()
    assert b.cluster.peers == frozenset()
    with listening(server, a):
        before = a.peers_changed
        b.write(1.0)
        wait_until(lambda: a.peers_changed > before, "it is told to read again")
        assert a.flushes == []


def test_a_node_that_comes_in_the_middle_of_writes_misses_none(server: ValkeyServer, a: Node, b: Node) -> None:
    a.others()
    done = threading.Event()
    written: dict[int, bytes] = {}
    start = SystemClock().now() // 100 * 100

    def keep_writing() -> None:
        while not done.is_set():
            at = start - 100 * len(written)
            written[at] = len(written).to_bytes(30, "big")
            a.cache.write(LIVE, Flush({}, {"e": {SYMBOL: {at: written[at]}}}))

    known: dict[int, bytes] = {}
    b.on_peers = lambda: known.update(b.cache.read_series(LIVE, "e", 0).get(SYMBOL, {}))
    with listening(server, a):
        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            wait_until(lambda: len(written) > 100, "the first node writes")
            b.others()
            listener = threading.Thread(target=b.listen)
            listener.start()
            wait_until(lambda: len(b.flushes) > 100, "the second node hears")
        finally:
            done.set()
            writer.join()

        def complete() -> bool:
            heard = [flush.slices["e"][SYMBOL] for _, flush in list(b.flushes)]
            return known | {at: record for records in heard for at, record in records.items()} == written

        wait_until(complete, "the second node knows all")
    listener.join()


def test_the_mode_is_agreed_on_and_told(server: ValkeyServer, a: Node, b: Node) -> None:
    assert a.cluster.read_mode() is None
    a.cluster.write_mode(TEST)
    assert b.cluster.read_mode() == TEST
    with listening(server, b):
        assert b.modes == [TEST]
        a.cluster.write_mode(LIVE)
        wait_until(lambda: b.modes == [TEST, LIVE], "the switch was heard")


def test_a_mode_that_is_none_is_no_mode(a: Node) -> None:
    a.client.set("marketflow:mode", "weekend")
    assert a.cluster.read_mode() is None


def test_one_node_alone_has_a_lease_until_it_gives_it_back(a: Node, b: Node) -> None:
    assert a.cluster.lease(LIVE, "e")
    assert not b.cluster.lease(LIVE, "e")
    assert a.cluster.lease(LIVE, "e")
    assert b.cluster.lease(TEST, "e")
    b.cluster.release(LIVE, "e")
    assert not b.cluster.lease(LIVE, "e")
    a.cluster.release(LIVE, "e")
    a.cluster.release(LIVE, "e")
    assert b.cluster.lease(LIVE, "e")


def test_a_lease_lasts_three_seconds_from_its_renewal(a: Node) -> None:
    a.cluster.lease(LIVE, "e")
    a.client.pexpire("marketflow:live:lease:e", 500)
    a.cluster.lease(LIVE, "e")
    assert 2_000 < a.client.pttl("marketflow:live:lease:e") <= 3_000


def test_a_lease_that_is_not_renewed_goes_to_another(a: Node, b: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LEASE_S", 0.3)
    assert a.cluster.lease(LIVE, "e")
    wait_until(lambda: b.cluster.lease(LIVE, "e"), "the lease has expired")
    monkeypatch.setattr(cluster, "LEASE_S", 3.0)
    b.cluster.release(LIVE, "e")
    assert b.cluster.lease(LIVE, "e")
    assert not a.cluster.lease(LIVE, "e")
    a.cluster.release(LIVE, "e")
    assert not a.cluster.lease(LIVE, "e")
    assert b.cluster.lease(LIVE, "e")


def test_a_lease_that_the_server_forgot_is_taken_again(a: Node) -> None:
    assert a.cluster.lease(LIVE, "e")
    a.client.flushall()
    assert a.cluster.lease(LIVE, "e")
    a.client.flushall()
    a.cluster.release(LIVE, "e")


def test_a_listener_of_a_frozen_server_ends_within_two_seconds(server: ValkeyServer) -> None:
    with running_node(server, timeout=0.5) as node, listening(server, node):
        began = time.monotonic()
        server.freeze()
        wait_until(lambda: node.refused, "the listener has ended", timeout=4)
        assert node.refused - began < 2


def test_a_listener_of_a_killed_server_ends_at_once_and_can_listen_again(server: ValkeyServer, a: Node) -> None:
    with listening(server, a):
        began = time.monotonic()
        server.kill()
        wait_until(lambda: a.refused, "the listener has ended")
        assert a.refused - began < 0.5
    server.start()
    with listening(server, a):
        a.cluster.write_mode(TEST)
        wait_until(lambda: a.modes == [TEST], "it hears again")
