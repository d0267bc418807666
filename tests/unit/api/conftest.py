"""The application over the market of the examples."""

import pytest
from falcon import testing

from marketflow.api import ApiSettings, create_app
from tests.support.market import EXCHANGES, SYMBOLS, MemoryMarket, example_market


@pytest.fixture
def market() -> MemoryMarket:
    return example_market()


@pytest.fixture
def client(market: MemoryMarket) -> testing.TestClient:
    settings = ApiSettings(symbols=SYMBOLS, exchanges=EXCHANGES, request_log="off")
    return testing.TestClient(create_app(market, settings, market.registry))
