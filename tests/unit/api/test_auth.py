"""Who may switch the mode."""

import pytest
from falcon import testing

from marketflow.api import ApiSettings, create_app
from tests.support.market import EXCHANGES, SYMBOLS, MemoryMarket

TOKEN = "correct-horse-é"  # noqa: S105  the token of these tests alone


@pytest.fixture
def guarded(market: MemoryMarket) -> testing.TestClient:
    settings = ApiSettings(symbols=SYMBOLS, exchanges=EXCHANGES, admin_token=TOKEN, request_log="off")
    return testing.TestClient(create_app(market, settings))


def test_the_token_lets_pass_from_anywhere(guarded: testing.TestClient, market: MemoryMarket) -> None:
    token = TOKEN.encode().decode("latin-1")  # as it arrives: WSGI hands bytes over as Latin-1
    for scheme in ("Bearer", "bearer"):
        answer = guarded.simulate_post(
            "/mode/test", headers={"Authorization": f"{scheme} {token}"}, remote_addr="203.0.113.7"
        )
        assert answer.status_code == 200
    assert market.mode() == "test"


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        (None, "Bearer"),
        ("", "Bearer"),
        ("Bearer", "Bearer"),
        ("Bearer wrong", 'Bearer error="invalid_token"'),
        ("Bearer " + TOKEN[:-1], 'Bearer error="invalid_token"'),
        ("Bearer " + TOKEN + "x", 'Bearer error="invalid_token"'),
        ("Basic " + TOKEN.encode().decode("latin-1"), 'Bearer error="invalid_token"'),
        (TOKEN, "Bearer"),
    ],
)
def test_without_the_token_nobody_passes(
    guarded: testing.TestClient, market: MemoryMarket, authorization: str | None, challenge: str
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = guarded.simulate_post("/mode/test", headers=headers, remote_addr="127.0.0.1")
    assert (answer.status_code, answer.json["type"]) == (401, "/problems/unauthorized")
    assert answer.headers["WWW-Authenticate"] == challenge
    assert market.mode() == "live"
    assert TOKEN not in answer.text


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_without_a_configured_token_this_machine_passes(client: testing.TestClient, address: str) -> None:
    assert client.simulate_post("/mode/test", remote_addr=address).status_code == 200


@pytest.mark.parametrize(
    "address", ["", "10.0.0.1", "203.0.113.7", "::", "2001:db8::1", "::ffff:10.0.0.1", "fe80::1%eth0", "localhost", "x"]
)
def test_without_a_configured_token_nobody_else_passes(
    client: testing.TestClient, market: MemoryMarket, address: str
) -> None:
    answer = client.simulate_post("/mode/test", extras={"REMOTE_ADDR": address})
    assert (answer.status_code, answer.json["type"]) == (403, "/problems/forbidden")
    assert market.mode() == "live"


def test_forwarded_headers_are_not_believed(client: testing.TestClient) -> None:
    forwarded = {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
    assert client.simulate_post("/mode/test", headers=forwarded, remote_addr="203.0.113.7").status_code == 403
    forwarded = {"X-Forwarded-For": "203.0.113.7"}
    assert client.simulate_post("/mode/test", headers=forwarded, remote_addr="127.0.0.1").status_code == 200


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", 200),
        ("http://localhost:8080", "localhost:8080", 200),
        ("http://[::1]:8080", "[::1]:8080", 200),
        ("https://evil.example", "127.0.0.1:8080", 403),
        ("http://localhost:3000", "localhost:8080", 403),
        ("http://evil.example:8080", "evil.example:8080", 403),  # a name that now resolves to 127.0.0.1
        ("null", "127.0.0.1:8080", 403),
        ("http://[", "127.0.0.1:8080", 403),
    ],
)
def test_a_foreign_page_in_a_browser_on_this_machine_may_not_switch(
    client: testing.TestClient, origin: str, host: str, status: int
) -> None:
    headers = {"Origin": origin, "Host": host}
    assert client.simulate_post("/mode/test", headers=headers, remote_addr="127.0.0.1").status_code == status


def test_the_token_is_not_shown_by_the_settings() -> None:
    assert TOKEN not in repr(ApiSettings(symbols=SYMBOLS, exchanges=EXCHANGES, admin_token=TOKEN))
