"""Secrets are nowhere but where they were given, and the embedded servers are reached by nobody else."""

import hmac
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import falcon.testing
import psutil
import pytest
import redis

from marketflow.api import auth
from marketflow.api.errors import Refused
from tests.support.feed_server import FeedServer, now_ms
from tests.support.oracle import Oracle
from tests.support.postgres_server import PostgresServer, running_server
from tests.support.system import System, installed, live_config, marketflow
from tests.support.valkey_server import ValkeyServer, running_valkey
from tests.support.waiting import wait_until

TOKEN, REDIS, POSTGRES = "tok-5up3r", "red-5up3r", "pos-5up3r"  # of servers that live for a test
SECRET = re.compile("5up3r")


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    with running_valkey("--requirepass", REDIS) as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_server() as server:
        server.execute(f"CREATE ROLE guarded LOGIN PASSWORD '{POSTGRES}'; GRANT ALL ON DATABASE marketflow TO guarded")
        server.execute("ALTER SCHEMA public OWNER TO guarded")
        yield server


@pytest.fixture(scope="module")
def feed() -> Iterator[FeedServer]:
    feed = FeedServer("exchange1", Oracle())
    yield feed
    feed.close()


@pytest.fixture(scope="module")
def system(feed: FeedServer, valkey: ValkeyServer, postgres: PostgresServer) -> Iterator[System]:
    """Run it with every secret in the environment, the worst place, and with all that a log can have."""
    env = {
        "MARKETFLOW_SERVER__ADMIN_TOKEN": TOKEN,
        "MARKETFLOW_REDIS__URL": valkey.url.replace("unix://", f"unix://:{REDIS}@"),
        "MARKETFLOW_POSTGRES__DSN": postgres.dsn_of(f"guarded:{POSTGRES}", "marketflow"),
    }
    with installed(live_config([feed], "1s") | {"log": {"level": "debug"}}, env) as system:
        system.start_ready()
        feed.send_ticks([("BTCUSDT", 100.0, now_ms())])
        wait_until(lambda: system.metric("marketflow_windows_stored_total") > 0, "a window is stored")
        yield system


def told(system: System) -> str:
    """Return all that it tells anyone: log, documents, health, errors."""
    paths = ("/health", "/actors", "/metrics", "/openapi.json", "/mode", "/prices/latest", "/x", "/docs")
    answers = [system.get(path) for path in paths]
    answers += [system.ask("POST", "/mode/test"), system.post("/mode/test", Authorization="Bearer wrong")]
    heads = [str(answer.headers) for answer in answers]
    return "\n".join([system.log, *heads, *(answer.data.decode() for answer in answers)])


def test_nothing_tells_a_secret(system: System) -> None:
    assert system.body("/health")["status"] == "ok"
    assert not SECRET.search(told(system))


def test_no_process_shows_a_secret_but_the_one_that_was_given_it(system: System) -> None:
    parent, *others = sorted(system.processes(), key=lambda process: process.create_time())
    assert len(others) >= 2
    for process in (parent, *others):
        assert not any(SECRET.search(part) for part in process.cmdline())
    for process in others:
        with suppress(psutil.NoSuchProcess):
            assert not any(SECRET.search(value) for value in process.environ().values())


def test_refusals_of_the_servers_tell_none_either(
    system: System, valkey: ValkeyServer, postgres: PostgresServer, feed: FeedServer
) -> None:
    with redis.Redis(unix_socket_path=valkey.url.removeprefix("unix://"), password=REDIS) as admin:
        admin.execute_command("CONFIG", "SET", "requirepass", "another")
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    postgres.execute("ALTER ROLE guarded PASSWORD 'another'")
    postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guarded'")

    def both_refuse() -> bool:
        feed.send_ticks([("BTCUSDT", 100.0, now_ms())])
        components = system.body("/health")["components"]
        return all("password" in components[name].get("reason", "") for name in ("redis", "postgres"))

    wait_until(both_refuse, "both refuse", 30)
    assert not SECRET.search(told(system))


@pytest.mark.parametrize(
    "given",
    [
        {"MARKETFLOW_POSTGRES__DSN": "postgresql://u:5up3r@5up3r@127.0.0.1/x"},
        {"MARKETFLOW_POSTGRES__DSN": "postgresql://u:5up3r/5up3r@127.0.0.1/x"},
        {"MARKETFLOW_POSTGRES__DSN": "password=5up3r 5up3r host=/nowhere"},
        {"MARKETFLOW_POSTGRES__DSN": "host=127.0.0.1 port=1 password='5up3r"},
        {"MARKETFLOW_REDIS__URL": "redis://u:5up3r/5up3r@127.0.0.1:1"},
        {"MARKETFLOW_REDIS__URL": "redis://u:5up3r@127.0.0.1:1/5up3r?x=5up3r"},
        {"MARKETFLOW_SERVER__ADMIN_TOKENS": "5up3r"},
    ],
    ids=lambda given: next(iter(given.values())),
)
def test_what_cannot_be_read_is_not_repeated(given: dict[str, str], tmp_path: Path) -> None:
    away = {"MARKETFLOW_REDIS__URL": "redis://127.0.0.1:1", "MARKETFLOW_POSTGRES__DSN": "host=127.0.0.1 port=1"}
    done = marketflow("run", "--port", "0", "--mode", "live", env=away | given, cwd=tmp_path)
    assert done.status in {1, 2}
    assert "marketflow: " in done.errors
    assert "Traceback" not in done.errors
    assert not SECRET.search(done.errors + done.output)


def test_a_redis_that_quotes_its_arguments_is_not_repeated(tmp_path: Path) -> None:
    with running_valkey("--rename-command", "AUTH", "") as server:
        env = {
            "MARKETFLOW_REDIS__URL": server.url.replace("unix://", f"unix://:{REDIS}@"),
            "MARKETFLOW_POSTGRES__DSN": "host=127.0.0.1 port=1",
            "MARKETFLOW_STORAGE__DATA_DIR": str(tmp_path / "data"),
        }
        done = marketflow("run", "--port", "0", "--mode", "live", env=env, cwd=tmp_path)
    assert done.status == 1
    assert "unknown command" in done.errors
    assert not SECRET.search(done.errors + done.output)


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, token: bytes) -> bool:
        compared.append((given, token))
        return hmac.compare_digest(given, token)

    monkeypatch.setattr(auth, "hmac", type("hmac", (), {"compare_digest": staticmethod(compare)}))
    env = falcon.testing.create_environ(method="POST", headers={"Authorization": "Bearer t"})
    with pytest.raises(Refused):
        auth.Guard(TOKEN).check(falcon.Request(env))
    assert compared == [(b"t", TOKEN.encode())]


# --- what listens, and what others on this machine may open ---


def test_only_the_api_and_the_generator_listen_and_only_on_loopback() -> None:
    with installed({"mode": {"initial": "test"}}) as system:
        system.start_ready()
        listening: dict[str, set[tuple[str, int]]] = {}
        for process in system.processes():
            with suppress(psutil.NoSuchProcess):
                for connection in process.net_connections("inet"):
                    if connection.status == psutil.CONN_LISTEN:
                        listening.setdefault(process.name(), set()).add(connection.laddr)
                if process.name() in {"valkey-server", "postgres"}:
                    assert process.net_connections("inet") == []
        addresses = set().union(*listening.values())
        assert {host for host, _ in addresses} == {"127.0.0.1"}
        assert len(addresses) == 1 + 3  # the API, and one for each generated exchange
        assert not {"valkey-server", "postgres"} & listening.keys()
        for name in ("run/valkey", "run/postgres", "valkey", "postgres"):
            assert stat.S_IMODE((system.data_dir / name).stat().st_mode) == 0o700
        assert stat.S_IMODE((system.data_dir / "lock").stat().st_mode) == 0o600
