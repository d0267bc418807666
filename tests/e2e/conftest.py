"""What end-to-end tests share: exchanges under control, and the log of MarketFlow beside each failure."""

from collections.abc import Generator, Iterator

import pytest

from tests.support.feed_server import FeedServer
from tests.support.oracle import Oracle
from tests.support.system import SYSTEMS


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what MarketFlow logged with a test that failed."""
    report = yield
    if report.failed:
        report.sections += [("log of MarketFlow", system.log_shown) for system in SYSTEMS]
    return report


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    """Know what the exchanges of a module sent."""
    return Oracle()


@pytest.fixture(scope="module")
def feeds(oracle: Oracle) -> Iterator[list[FeedServer]]:
    """Serve three exchanges."""
    servers = [FeedServer(f"exchange{number}", oracle) for number in (1, 2, 3)]
    yield servers
    for server in servers:
        server.close()
