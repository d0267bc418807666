"""What goes wrong with a server: it hangs, is killed, restarted, full, read-only, loading, too old, or refuses."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import redis

from marketflow.adapters.clock import SystemClock
from marketflow.adapters.redis import RedisCluster, RedisPriceCache, RedisWindowJournal, check, connect, new_node_name
from marketflow.domain.mode import LIVE
from marketflow.domain.view import Flush, Latest
from marketflow.domain.window import WindowKey
from marketflow.errors import ConfigurationError, StartupError, Unavailable
from tests.support.ports import free_port
from tests.support.valkey_server import ValkeyServer, running_valkey
from tests.support.waiting import wait_until

PRICES = {"BTCUSDT": {"e": Latest(1.0, 1)}}
FLUSH = Flush(PRICES, {"e": {"BTCUSDT": {0: bytes(30)}}})
WINDOW = WindowKey("e", "BTCUSDT", 0)


def price_cache(client: redis.Redis) -> RedisPriceCache:
    cluster = RedisCluster(client, new_node_name())
    return RedisPriceCache(client, cluster, SystemClock(), series_retention=300_000, max_skew=60_000)


def everything(client: redis.Redis, cache: RedisPriceCache) -> dict[str, Callable[[], object]]:
    """Every call that needs an answer."""
    cluster, journal = RedisCluster(client, new_node_name()), RedisWindowJournal(client)
    return {
        "write": lambda: cache.write(LIVE, FLUSH),
        "read_latest": lambda: cache.read_latest(LIVE, ["BTCUSDT"]),
        "read_series": lambda: cache.read_series(LIVE, "e", 0),
        "series_since": lambda: cache.series_since(LIVE, 1),
        "data_set": cache.data_set,
        "ping": cache.ping,
        "save": lambda: journal.save(LIVE, {WINDOW: b""}),
        "load": lambda: journal.load(LIVE, "e"),
        "forget": lambda: RedisWindowJournal(client).forget(LIVE, [WINDOW]),
        "announce": lambda: cluster.announce(b""),
        "withdraw": cluster.withdraw,
        "read_mode": cluster.read_mode,
        "write_mode": lambda: cluster.write_mode(LIVE),
        "lease": lambda: cluster.lease(LIVE, "e"),
        "listen": lambda: cluster.listen(lambda *_: None, lambda *_: None, lambda: None),
        "check": lambda: check(client),
    }


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    with connect(server.url) as client:
        yield client


def test_a_server_that_is_not_there_is_unavailable_at_once() -> None:
    with connect(f"redis://:secret@127.0.0.1:{free_port()}") as client:
        for name, call in everything(client, price_cache(client)).items():
            began = time.monotonic()
            with pytest.raises(Unavailable, match=r"^Redis at 127\.0\.0\.1:") as raised:
                call()
            assert time.monotonic() - began < 0.4, name
            assert "secret" not in str(raised.value)
            assert "\n" not in str(raised.value)


def test_a_frozen_server_is_noticed_within_the_timeout_and_used_again_once_it_thaws(
    server: ValkeyServer, client: redis.Redis
) -> None:
    cache = price_cache(client)
    cache.write(LIVE, FLUSH)
    server.freeze()
    noticed: dict[str, float] = {}

    def notice(name: str, call: Callable[[], object]) -> None:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            call()
        noticed[name] = time.monotonic() - began

    calls = everything(client, cache)
    callers = [threading.Thread(target=notice, args=item) for item in calls.items()]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert noticed.keys() == calls.keys()
    # A listener waits for messages first, then for an answer to its question.
    assert noticed.pop("listen") < 2
    assert {name: seconds for name, seconds in noticed.items() if not 0.4 < seconds < 1} == {}
    server.thaw()
    cache.write(LIVE, FLUSH)
    assert cache.read_latest(LIVE, ["BTCUSDT"]) == PRICES


def test_many_callers_of_a_frozen_server_do_not_wait_for_each_other(server: ValkeyServer, client: redis.Redis) -> None:
    cache = price_cache(client)
    cache.ping()
    server.freeze()
    refused: list[float] = []
    began = time.monotonic()

    def call() -> None:
        try:
            cache.read_latest(LIVE, ["BTCUSDT"])
        except Unavailable:
            refused.append(time.monotonic() - began)

    callers = [threading.Thread(target=call) for _ in range(100)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(refused) == 100
    assert max(refused) < 1.6


def test_others_go_on_while_one_waits_for_a_frozen_server(server: ValkeyServer, client: redis.Redis) -> None:
    cache = price_cache(client)
    cache.write(LIVE, FLUSH)
    server.freeze()

    def wait() -> None:
        with pytest.raises(Unavailable):
            cache.write(LIVE, FLUSH)

    waiter = threading.Thread(target=wait)
    waiter.start()
    pause, rounds = threading.Event(), 0
    while waiter.is_alive():
        pause.wait(0.01)
        rounds += 1
    assert rounds > 10


def test_a_restarted_server_is_told_by_an_error(server: ValkeyServer, client: redis.Redis) -> None:
    cache = price_cache(client)
    cache.write(LIVE, FLUSH)
    assert cache.series_since(LIVE, 5) == 5
    assert cache.series_since(LIVE, 6) == 5
    server.kill()
    with pytest.raises(Unavailable):
        cache.ping()
    server.start()
    # Who writes must hear of it: what was written before may be lost.
    with pytest.raises(Unavailable):
        cache.write(LIVE, FLUSH)
    assert cache.series_since(LIVE, 7) == 7
    assert cache.read_latest(LIVE, ["BTCUSDT"]) == {}
    cache.write(LIVE, FLUSH)
    assert cache.read_latest(LIVE, ["BTCUSDT"]) == PRICES


def answers(cache: RedisPriceCache) -> bool:
    try:
        cache.ping()
    except Unavailable:
        return False
    return True


def test_what_a_server_kept_over_a_crash_is_read() -> None:
    with running_valkey("--appendonly", "yes", "--appendfsync", "always") as server, connect(server.url) as client:
        cache, journal = price_cache(client), RedisWindowJournal(client)
        cache.write(LIVE, FLUSH)
        journal.save(LIVE, {WINDOW: b"state"})
        server.kill()
        server.start()
        wait_until(lambda: answers(cache), "it has loaded what it kept")
        assert cache.read_latest(LIVE, ["BTCUSDT"]) == PRICES
        assert journal.load(LIVE, "e") == {WINDOW: b"state"}


def test_a_full_server_refuses_writes_and_is_used_again_when_it_has_room(client: redis.Redis) -> None:
    cache, journal = price_cache(client), RedisWindowJournal(client)
    cache.write(LIVE, FLUSH)
    client.config_set("maxmemory", 1)
    with pytest.raises(Unavailable, match="maxmemory"):
        cache.write(LIVE, FLUSH)
    with pytest.raises(Unavailable, match="maxmemory"):
        journal.save(LIVE, {WINDOW: b""})
    with pytest.raises(Unavailable, match="maxmemory"):
        check(client)
    assert cache.read_latest(LIVE, ["BTCUSDT"]) == PRICES
    client.config_set("maxmemory", 0)
    cache.write(LIVE, FLUSH)


def test_a_replica_refuses_writes_until_it_is_promoted(client: redis.Redis) -> None:
    cache, cluster = price_cache(client), RedisCluster(client, new_node_name())
    client.replicaof("127.0.0.1", free_port())
    for call in (lambda: cache.write(LIVE, FLUSH), lambda: cluster.lease(LIVE, "e"), lambda: check(client)):
        with pytest.raises(Unavailable, match="read only replica"):
            call()
    client.replicaof("NO", "ONE")
    cache.write(LIVE, FLUSH)
    assert cluster.lease(LIVE, "e")


def test_a_loading_server_is_unavailable_until_it_has_loaded() -> None:
    # It looks at its clients every 2 MB.
    with running_valkey("--key-load-delay", "60000", "--rdbcompression", "no") as server, connect(server.url) as client:
        for number in range(16):
            client.set(f"filler{number}", b"x" * 2**20)
        client.save()
        server.kill()
        server.start()
        cache = price_cache(client)
        with pytest.raises(Unavailable, match=r"(?i)loading"):
            cache.read_latest(LIVE, ["BTCUSDT"])
        with pytest.raises(Unavailable, match=r"(?i)loading"):
            cache.write(LIVE, FLUSH)

        def loaded() -> bool:
            try:
                cache.write(LIVE, FLUSH)
            except Unavailable:
                return False
            return True

        wait_until(loaded, "the server has loaded")


def test_a_key_that_somebody_else_uses_is_unavailable_and_costs_only_its_own_command(client: redis.Redis) -> None:
    cache = price_cache(client)
    client.set("marketflow:live:latest:A", "not a hash")
    with pytest.raises(Unavailable, match="WRONGTYPE"):
        cache.write(LIVE, Flush({"A": PRICES["BTCUSDT"], **PRICES}, {}))
    assert cache.read_latest(LIVE, ["BTCUSDT"]) == PRICES
    client.delete("marketflow:live:latest:A")
    cache.write(LIVE, Flush({"A": PRICES["BTCUSDT"]}, {}))
    assert cache.read_latest(LIVE, ["A"]) == {"A": PRICES["BTCUSDT"]}


def test_a_server_that_takes_us_passes_the_check(client: redis.Redis) -> None:
    check(client)
    assert [key for key in client.keys("*") if client.pttl(key) == -1] == []


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("default:wrong-secret", "invalid username-password pair"),
        ("reader:secret", "no permissions to run the 'set' command"),
        ("blind:secret", "no permissions to run the 'info' command"),
        ("elsewhere:secret", "(?i)no permissions to access"),
    ],
)
def test_who_is_refused_is_told_at_the_start_in_one_line(user: str, message: str) -> None:
    with running_valkey("--requirepass", "right-secret") as server:
        with connect(server.url.replace("unix://", "unix://default:right-secret@")) as admin:
            admin.acl_setuser("reader", enabled=True, passwords="+secret", categories=["+@read"], commands=["+info"])
            admin.acl_setuser("blind", enabled=True, passwords="+secret", categories=["+@read", "-@dangerous"])
            admin.acl_setuser("elsewhere", enabled=True, passwords="+secret", categories=["+@all"], keys=["x:*"])
        with connect(server.url.replace("unix://", f"unix://{user}@")) as client:
            with pytest.raises(StartupError, match=message) as raised:
                check(client)
            assert "\n" not in str(raised.value)
            assert "secret" not in str(raised.value)
        with connect(server.url) as nobody, pytest.raises(StartupError, match="Authentication required"):
            check(nobody)


def test_a_database_that_is_not_there_ends_a_start(server: ValkeyServer) -> None:
    with connect(f"{server.url}?db=99") as client, pytest.raises(StartupError, match="DB index"):
        check(client)


def test_too_old_a_server_ends_a_start() -> None:
    # A server so old cannot be had; this one says no more than its version.
    info = b"redis_version:6.0.16\r\nrun_id:abc\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with closing(listener.accept()[0]) as peer:
                while request := peer.recv(4_096):
                    for _ in range(request.count(b"*")):
                        peer.sendall(b"$%d\r\n%b\r\n" % (len(info), info) if b"INFO\r\n" in request else b"+OK\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            connect(f"redis://127.0.0.1:{listener.getsockname()[1]}") as client,
            pytest.raises(StartupError, match=r"version 6\.0\.16 is too old, 6\.2 or newer is needed"),
        ):
            check(client)
        thread.join()


@pytest.mark.parametrize(
    "url", ["", "localhost:6379", "http://host", "redis://u:se/cret@host:6379", "redis://h?nokey=1"]
)
def test_an_address_that_is_none_names_its_key_and_keeps_the_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"redis\.url: expected") as raised:
        connect(url)
    assert "cret" not in str(raised.value)
