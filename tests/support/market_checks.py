"""Comparisons of what MarketFlow says with what the oracle says."""

from typing import Any

import pytest

from tests.support.oracle import Oracle, Row, highest, lowest
from tests.support.system import StoredRow, System
from tests.support.waiting import wait_until

TOLERANCE = 1e-9


def same_row(row: Row, expected: Row) -> bool:
    """Tell whether prices and counts are equal, and averages to 1e-9."""
    return row._replace(average=0) == expected._replace(average=0) and row.average == pytest.approx(
        expected.average, rel=TOLERANCE
    )


def wait_metric(system: System, expected: int, name: str, timeout: float = 15.0, **labels: str) -> None:
    """Return once a metric has this value; it must not go beyond."""
    wait_until(lambda: system.metric(name, **labels) >= expected, f"{name} {labels} is {expected}", timeout)
    assert system.metric(name, **labels) == expected


def wait_aggregated(system: System, oracle: Oracle, timeout: float = 15.0) -> None:
    """Return once every accepted tick of every exchange is in the aggregates; no tick may be there twice."""
    for exchange in oracle.received:
        wait_metric(system, oracle.accepted(exchange), "marketflow_ticks_aggregated_total", timeout, exchange=exchange)


def wait_served(system: System, oracle: Oracle, timeout: float = 15.0) -> None:
    """Return once every accepted tick is in the answers; they must be of the last five minutes."""
    for symbol in {tick.symbol for tick in oracle.ticks}:
        ticks = oracle.of(symbol)
        newest = max(tick.time for tick in ticks)

        def look(symbol: str = symbol, newest: int = newest, count: int = len(ticks)) -> bool:
            answer = system.get(f"/prices/average/{symbol}?period=5m")
            return answer.status == 200 and answer.body["to"] > newest and answer.body["ticks"] >= count

        wait_until(look, f"all ticks of {symbol} are served", timeout)


def wait_stored(system: System, ticks: int, timeout: float = 15.0) -> list[StoredRow]:
    """Return all rows once they hold this many ticks."""
    wait_until(lambda: system.stored_ticks() >= ticks, f"{ticks} ticks are stored", timeout)
    return system.rows()


def check_rows(rows: list[StoredRow], oracle: Oracle, interval: int, mode: str = "live") -> None:
    """Compare every row of a mode with the oracle, and find every window of the oracle."""
    found = {(row.exchange, row.symbol, row.window_start): row.row for row in rows if row.mode == mode}
    expected = oracle.windows(interval)
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    wrong = {key: (row, expected[key]) for key, row in found.items() if not same_row(row, expected[key])}
    assert not wrong, wrong


def check_extreme(body: dict[str, Any], oracle: Oracle, kind: str, symbol: str, exchange: str | None) -> None:
    """Compare an answer to highest or lowest with the oracle, over the span that the answer names."""
    ticks = oracle.of(symbol, exchange, body["from"], body["to"])
    best = (highest if kind == "highest" else lowest)(ticks)
    same = {tick.exchange for tick in ticks if (tick.price, tick.time) == (best.price, best.time)}
    found = (body["price"], body["timestamp"], body["ticks"])
    assert found == (best.price, best.time, len(ticks)), (body, best, len(ticks))
    assert body["exchange"] in same, body


def check_average(body: dict[str, Any], oracle: Oracle, symbol: str, exchange: str | None) -> None:
    """Compare an answer to average with the oracle, over the span that the answer names."""
    ticks = oracle.of(symbol, exchange, body["from"], body["to"])
    assert body["ticks"] == len(ticks), (body, len(ticks))
    assert body["price"] == pytest.approx(sum(tick.price for tick in ticks) / len(ticks), rel=TOLERANCE)
    assert body["exchange"] == exchange
    assert "timestamp" not in body
