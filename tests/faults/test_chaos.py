"""Random actors of a running node are killed in every way, under load: the tree is whole again, and the law holds."""

import pytest

from tests.support.chaos_system import chaos_node
from tests.support.fault_load import InterruptedLoad, Probe
from tests.support.fault_system import INTERVAL
from tests.support.feed_server import now_ms
from tests.support.market_checks import check_rows
from tests.support.oracle import SYMBOLS
from tests.support.waiting import let_pass, wait_until

MB = 1024 * 1024


@pytest.mark.parametrize(
    "seconds", [pytest.param(10, marks=pytest.mark.quick, id="short"), pytest.param(60, id="minute")]
)
def test_chaos(seconds: int) -> None:
    with chaos_node() as (node, feeds, _, _):
        with InterruptedLoad(feeds):
            let_pass(3)
            before = node.ask_node("census")
            node.tell_node("chaos")
            with Probe(node) as probe:
                let_pass(seconds)
                calm = node.ask_node("calm")
            for feed in feeds:
                feed.wait_connected()
            let_pass(1)
        probe.report(f"chaos for {seconds} s")
        print(f"kills: {calm['kills']}")
        kills = sum(calm["kills"].values())
        assert kills > seconds
        assert calm["given_up"] == []
        assert {state for _, state, _, _ in calm["tree"]} == {"running"}
        assert sum(restarts for _, _, restarts, _ in calm["tree"]) >= kills / 2

        # Prices are served, during it and afterwards.
        assert probe.statuses[200] > 0.9 * sum(probe.statuses.values()), probe.statuses
        now = now_ms()
        for feed in feeds:
            feed.send_ticks((symbol, 777.0, now) for symbol in SYMBOLS)
        for symbol in SYMBOLS:
            wait_until(
                lambda symbol=symbol: node.body(f"/prices/latest/{symbol}")["price"] == 777.0,  # type: ignore[misc]  # mypy knows no type of a lambda's default
                "the latest price is served",
            )
        assert node.body("/health")["components"]["actors"]["restarts"] >= kills / 2

        # Nothing is on its way any more, and nothing waits.
        def in_flight() -> int:
            return int(node.body("/health")["components"]["ticks"]["in_flight"])

        wait_until(lambda: in_flight() == 0, "everything is accounted for")
        wait_until(lambda: not node.metric("marketflow_windows_waiting"), "every window is stored", 20)
        after = node.ask_node("census")
        lost = node.ask_node("ledger")["lost"]
        oracle = node.expected(lost)
        print(f"lost {len(lost)} batches; census before {before}, after {after}")

        # The law: what was read is aggregated, but for the batches that an actor failed on, and stored exactly.
        assert node.metric("marketflow_ticks_aggregated_total") == len(oracle.ticks)
        failed = node.metric("marketflow_ticks_failed_total")
        assert node.metric("marketflow_ticks_received_total") == failed + sum(oracle.received.values())
        assert (failed > 0) == (len(lost) > 0)
        check_rows(node.rows(), oracle, INTERVAL)
        for symbol in SYMBOLS:
            body = node.body(f"/prices/highest/{symbol}?period=5m")
            assert body["price"] == 777.0

        # No greenlet, no actor and no memory has leaked.
        assert after["actors"] == before["actors"]
        assert after["greenlets"] <= before["greenlets"] + 5
        assert after["rss"] - before["rss"] < 30 * MB + seconds * MB / 2
