"""The machine's clock steps by an hour, back and forth: windows go by the time of their ticks, and nothing stops."""

from tests.support.chaos_system import chaos_node
from tests.support.fault_load import Load, Probe
from tests.support.fault_system import INTERVAL
from tests.support.market_checks import check_rows
from tests.support.waiting import let_pass, wait_until

HOUR = 3_600_000


def test_steps_of_the_clock() -> None:
    with chaos_node() as (node, feeds, _, _):
        with Load(feeds):
            let_pass(2)
            with Probe(node, ["/prices/latest/BTCUSDT"]) as probe:
                for step in (HOUR, -HOUR, -HOUR, HOUR):
                    node.tell_node(f"step {step}")
                    let_pass(2)
        probe.check("steps of the clock")
        wait_until(lambda: node.body("/health")["components"]["ticks"]["in_flight"] == 0, "all is accounted for")
        wait_until(lambda: not node.metric("marketflow_windows_waiting"), "every window is stored", 20)

        # What was off by more than the skew allows by the clock of the moment is rejected, and all else is stored.
        oracle = node.expected(node.ask_node("ledger")["lost"])
        rejected = node.metric("marketflow_ticks_rejected_total", reason="bad_timestamp")
        aggregated = node.metric("marketflow_ticks_aggregated_total")
        assert rejected > 5_000
        assert rejected == sum(oracle.rejected.values())
        assert aggregated == len(oracle.ticks) == node.stored_ticks()
        check_rows(node.rows(), oracle, INTERVAL)
        assert node.metric("marketflow_actor_restarts_total") == 0
