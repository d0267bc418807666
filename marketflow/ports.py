"""What the actors need of the world outside, as Protocols; adapters implement them, the composition root wires them.

Every method that waits for a server waits cooperatively (other greenlets go on), within the adapter's own timeouts,
and raises `marketflow.errors.Unavailable` when the server does not answer, cannot be reached or refuses.
Times are Unix milliseconds.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from marketflow.domain.feed import Reason
from marketflow.domain.mode import Mode
from marketflow.domain.summary import Summary
from marketflow.domain.view import Flush, Latest
from marketflow.domain.window import StoredWindow, WindowKey


class Clock(Protocol):
    """Where actors read the time."""

    def now(self) -> int:
        """Return the time of day, Unix ms."""

    def monotonic(self) -> int:
        """Return ms of a clock that never steps."""


class Meters(Protocol):
    """The counts that prove that nothing is lost: received = rejected + aggregated + failed, once all is handled."""

    def received(self, exchange: str, lines: int) -> None:
        """Count whole lines received."""

    def rejected(self, exchange: str, reason: Reason, lines: int) -> None:
        """Count lines rejected as bad."""

    def failed(self, exchange: str, lines: int) -> None:
        """Count lines of a batch that a fault of our own lost."""

    def aggregated(self, exchange: str, ticks: int, received_at: int) -> None:
        """Count ticks that are part of their windows now, and how long that took since their receipt (Unix ms)."""

    def stored(self, exchange: str, windows: int) -> None:
        """Count windows stored in PostgreSQL."""

    def waiting(self, exchange: str, windows: int) -> None:
        """Note how many windows are not stored as they are."""

    def snapshot(self) -> bytes:
        """Return this node's counts, for the other workers of its server."""

    def learn(self, siblings: Iterable[bytes]) -> None:
        """Take over the snapshots of the other workers of this node's server."""


# --- exchange feeds ---


class FeedConnection(Protocol):
    """One open connection to an exchange."""

    def read(self) -> bytes:
        """Wait for bytes and return what has arrived, at most a chunk; b"" when the exchange has closed."""

    def close(self) -> None:
        """Close it; a greenlet waiting in `read` gets b"" or `Unavailable`."""


class FeedStatus(NamedTuple):
    """How a feed does, and how long ago (ms) it last brought something; None when it has not yet."""

    status: Literal["ok", "connecting", "stale"]
    age: int | None


class Feed(Protocol):
    """How to reach one exchange."""

    def connect(self) -> FeedConnection:
        """Open a connection. Raises `Unavailable`, after the connect timeout at the latest."""


# --- Redis ---


class PriceCache(Protocol):
    """The newest prices and the recent series, shared by all nodes through Redis."""

    def write(self, mode: Mode, flush: Flush) -> None:
        """Write whole states in one pipeline and tell the other nodes. Latest prices expire a minute after their last
        write, slices after the series' retention."""

    def read_latest(self, mode: Mode, symbols: Iterable[str]) -> dict[str, dict[str, Latest]]:
        """Return the latest prices that are there, by symbol and exchange."""

    def read_series(self, mode: Mode, exchange: str, since: int) -> dict[str, dict[int, bytes]]:
        """Return the slice records of an exchange that start at or after `since`, by symbol and start."""

    def series_since(self, mode: Mode, since: int) -> int:
        """Return since when the series here is complete (Unix ms); a Redis that does not say is told `since`."""

    def data_set(self) -> str:
        """Return a name for the data that answers: another one once the server has been restarted or replaced."""

    def sweep(self, mode: Mode) -> None:
        """Remove latest prices that were not written for a minute, where the server cannot by itself; to be called
        every few seconds."""

    def ping(self) -> None:
        """Return when the server answers."""


class WindowJournal(Protocol):
    """Windows that are not safely stored yet, kept in Redis so that a killed node loses none."""

    def save(self, mode: Mode, windows: Mapping[WindowKey, bytes]) -> None:
        """Set the whole journalled state of windows."""

    def load(self, mode: Mode, exchange: str) -> dict[WindowKey, bytes]:
        """Return what is journalled for an exchange."""

    def forget(self, mode: Mode, keys: Collection[WindowKey]) -> None:
        """Remove windows that are stored."""


class Cluster(Protocol):
    """What the nodes agree on through Redis: who is there, which mode is in force, who reads which feed."""

    node: str
    """The name of this node, different from every other's, also from that of its own former runs."""

    def announce(self, status: bytes) -> dict[str, bytes]:
        """Set this node's status, which is gone three seconds after the last call; return the others' by node."""

    def withdraw(self) -> None:
        """Remove this node's status at once."""

    def read_mode(self) -> Mode | None:
        """Return the mode that the nodes agreed on, None when there is none yet."""

    def write_mode(self, mode: Mode) -> None:
        """Set the mode for all nodes and tell them."""

    def lease(self, mode: Mode, exchange: str) -> bool:
        """Take, or renew, the right to read a feed for three seconds; False while another node holds it."""

    def release(self, mode: Mode, exchange: str) -> None:
        """Give a lease back, if this node holds it."""

    def listen(
        self,
        on_flush: Callable[[Mode, Flush], None],
        on_mode: Callable[[Mode], None],
        on_peers: Callable[[], None],
    ) -> None:
        """Call back for what other nodes write, a change of mode, and nodes that came or went; until `Unavailable`."""


# --- PostgreSQL ---


class WindowStore(Protocol):
    """The table aggregated_prices."""

    def store(self, windows: Sequence[StoredWindow]) -> None:
        """Write whole states in one transaction. A row with more ticks is not overwritten: states only grow."""

    def load(self, mode: Mode, exchange: str, since: int) -> list[StoredWindow]:
        """Return an exchange's rows that start at or after `since`."""

    def summarize(
        self,
        mode: Mode,
        symbol: str,
        exchange: str | None,
        start: int,
        end: int,
        without: Collection[tuple[str, int]],
    ) -> dict[str, Summary]:
        """Return, by exchange, what the rows with `start <= window_start < end` amount to, leaving out the windows
        `without` (exchange, start). `exchange` None means every exchange."""

    def latest(self, mode: Mode, symbol: str, exchange: str | None) -> dict[str, Latest]:
        """Return, by exchange, the close of the newest row."""

    def ping(self) -> None:
        """Return when the server answers."""


# --- the market, as the API asks for it ---

Source: TypeAlias = Literal["redis", "memory", "postgres"]
Kind: TypeAlias = Literal["highest", "lowest", "average"]


class LatestPrice(NamedTuple):
    """The answer to "latest"; times are Unix ms."""

    symbol: str
    exchange: str
    price: float
    timestamp: int
    mode: Mode
    source: Source
    stale: bool


class PeriodPrice(NamedTuple):
    """The answer to "highest", "lowest" or "average" over a period.

    An average has no timestamp, and names the exchange that was asked for or None.
    """

    symbol: str
    exchange: str | None
    price: float
    timestamp: int | None
    start: int
    end: int
    ticks: int
    mode: Mode
    source: Source


class Switched(NamedTuple):
    """The answer to a switch of mode."""

    mode: Mode
    previous: Mode
    changed: bool


class Market(Protocol):
    """What the API asks of a node. Each call is bounded in time; `Unavailable` means that nothing can answer now."""

    retention: int
    """Longest period that may be asked for, in ms."""

    def latest(self, symbol: str, exchange: str | None = None) -> LatestPrice:
        """Return the tick with the greatest timestamp. Raises UnknownSymbol, UnknownExchange, NoData, Unavailable."""

    def latest_all(self) -> tuple[Mode, list[LatestPrice]]:
        """Return the current mode and the latest price of every symbol and exchange that has one."""

    def period(self, kind: Kind, symbol: str, exchange: str | None, period: int) -> PeriodPrice:
        """Return the highest, lowest or average price over the last `period` ms. Raises as `latest` does."""

    def mode(self) -> Mode:
        """Return the mode in force."""

    def switch(self, mode: Mode) -> Switched:
        """Put a mode in force; return once it is."""

    def health(self) -> dict[str, Any]:
        """Return the body of GET /health: status ok, degraded or down, mode, version, components."""

    def live(self) -> bool:
        """Tell whether the actor system runs."""

    def ready(self) -> bool:
        """Tell whether prices can be served."""

    def actors(self) -> list[dict[str, Any]]:
        """Return the supervision tree, parents before children, for GET /actors."""

    def metrics(self) -> bytes:
        """Return all metrics as Prometheus text."""
