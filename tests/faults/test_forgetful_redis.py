"""A Redis that has lost everything while no node ran: periods are answered from what is stored."""

from tests.support.fault_load import load_for
from tests.support.fault_system import INTERVAL, FaultSystem, world
from tests.support.feed_server import now_ms
from tests.support.market_checks import check_average, check_extreme, check_rows
from tests.support.oracle import Oracle
from tests.support.waiting import let_pass, wait_until


def check_answers(system: FaultSystem, oracle: Oracle, source: str) -> None:
    """Compare what is said of periods with the oracle."""
    for period in ("1m", "5m", "10m"):
        for exchange in (None, "exchange2"):
            path = f"{exchange}/BTCUSDT" if exchange else "BTCUSDT"
            for kind in ("highest", "lowest"):
                body = system.body(f"/prices/{kind}/{path}?period={period}")
                check_extreme(body, oracle, kind, "BTCUSDT", exchange)
                assert body["source"] == (source if period != "10m" else "postgres")
            check_average(system.body(f"/prices/average/{path}?period={period}"), oracle, "BTCUSDT", exchange)


def test_what_redis_lost_is_answered_from_postgresql_after_a_restart() -> None:
    with world() as (system, oracle, feeds, valkey, _):
        load_for(4, system, feeds)
        check_answers(system, oracle, "redis")  # a first start has nothing to ask PostgreSQL for
        assert system.terminate() == 0
        valkey.kill()
        valkey.start()  # it keeps nothing
        system.start_ready()
        for feed in feeds:
            feed.wait_connected()
            feed.send_ticks([("BTCUSDT", 1.5, now_ms()), ("BTCUSDT", 1e6, now_ms())])
        wait_until(
            lambda: system.metric("marketflow_ticks_aggregated_total", exchange="exchange3") >= 2, "ticks are in"
        )
        let_pass(0.2)  # answers end with the slice before the current one
        check_answers(system, oracle, "postgres")
        wait_until(lambda: system.stored_ticks() >= len(oracle.ticks), "all is stored", 15)
        check_answers(system, oracle, "postgres")
        check_rows(system.rows(), oracle, INTERVAL)
