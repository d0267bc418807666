"""Two workers: the feeds are shared between them, each is read once, and a switch of mode shares them anew."""

from collections import Counter

from tests.support.feed_server import FeedServer, now_ms
from tests.support.market_checks import check_rows, wait_served, wait_stored
from tests.support.oracle import Oracle
from tests.support.system import System, installed, live_config
from tests.support.waiting import wait_until

SECOND = 1_000


def test_two_workers_share_the_feeds(feeds: list[FeedServer], oracle: Oracle) -> None:
    with installed(live_config(feeds) | {"server": {"workers": 2}}) as system:
        system.start_ready()
        _check_shared(system, feeds, oracle)
        for mode in ("test", "live"):
            assert system.post(f"/mode/{mode}").status == 200
        _check_shared(system, feeds, oracle)
        check_rows(wait_stored(system, len(oracle.ticks)), oracle, SECOND)
        assert system.terminate() == 0


def _check_shared(system: System, feeds: list[FeedServer], oracle: Oracle) -> None:
    """Each node has the leases of some feeds, and what those send is served by both."""
    readers = wait_until(lambda: _readers(system, feeds), "every feed has a reader")
    assert sorted(readers.values()) == [1, 2]
    for number, feed in enumerate(feeds):
        feed.wait_connected()
        feed.send_ticks(("BTCUSDT", 100.0 + number + step, now_ms()) for step in range(50))
    for _ in range(4):  # whichever worker answers
        wait_served(system, oracle)


def _readers(system: System, feeds: list[FeedServer]) -> Counter[bytes] | None:
    """How many feeds each node has the lease of; None while one has none."""
    with system.redis() as client:
        owners = client.mget([f"marketflow:live:lease:{feed.name}" for feed in feeds])
    return Counter(owners) if all(owners) else None
