"""Ticks of our own on a feed of our own, and how long each takes to be seen over REST."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.load.requests import Client, rendered
from tests.load.sources import ProbeFeed
from tests.support.waiting import let_pass

_TOO_LONG = 10.0  # seconds
_PAUSE = 0.003  # seconds from one marker to the next
_BETWEEN = 0.001
"""Seconds from one question to the next. Asked without any pause, one client keeps a core busy and measures itself."""


class Seen(NamedTuple):
    """When a marker was sent, and how long it took; seconds. It was seen with the last of `asked` requests."""

    sent: float
    after: float
    last_request: float


class Probe:
    """Sends marker prices and asks for them over one keep-alive connection until each is seen."""

    def __init__(self, feed: ProbeFeed, client: Client) -> None:
        self._feed = feed
        self._client = client
        self._request = rendered(f"/prices/latest/{feed.name}/{feed.symbol}")
        self._price = 1000.5

    def mark(self) -> Seen:
        """Send a marker and return once an answer holds it."""
        self._price += 1.0
        wanted = b'"price":%r,' % self._price
        sent = time.perf_counter()
        self._feed.send(self._price)
        while True:
            asked = time.perf_counter()
            answer = self._client.ask(self._request)
            now = time.perf_counter()
            if wanted in answer:
                return Seen(sent, now - sent, now - asked)
            assert now - sent < _TOO_LONG, f"a price is not seen: {answer!r}"
            let_pass(_BETWEEN)

    def marks(self, go_on: Callable[[], bool]) -> list[Seen]:
        """Send markers one after the other."""
        found = []
        while go_on():
            found.append(self.mark())
            let_pass(_PAUSE)
        return found

    def marks_for(self, seconds: float) -> list[Seen]:
        """Send markers for some seconds, after one to get going."""
        self.mark()
        end = time.monotonic() + seconds
        return self.marks(lambda: time.monotonic() < end)


@contextmanager
def probe_of(feed: ProbeFeed, port: int) -> Iterator[Probe]:
    """Give a probe a connection to the server."""
    client = Client(port)
    try:
        yield Probe(feed, client)
    finally:
        client.close()
