"""Rows on their way in and out: windows as binary COPY, times as PostgreSQL counts them."""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from marketflow.domain.bar import Bar
from marketflow.domain.mode import Mode
from marketflow.domain.window import StoredWindow, WindowKey

# https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format". Doubles as they are, so that they come back
# exactly, and a third of the time that text would take.
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = struct.pack("!h", -1)
_FIELDS = struct.Struct("!h")
_TEXT = struct.Struct("!i")
_NUMBERS = struct.Struct("!" + "iq" + "id" * 5 + "iq" * 5)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_POSTGRES_EPOCH_MS = 946_684_800_000  # 2000-01-01, from which PostgreSQL counts microseconds


def instant(time: int) -> datetime:
    """Return a Unix time in ms as a datetime, exactly."""
    return _EPOCH + timedelta(milliseconds=time)


def unix_ms(time: datetime) -> int:
    """Return the Unix time in ms of a datetime, exactly, rounded down."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


def copy_rows(windows: Iterable[StoredWindow]) -> bytes:
    """Return windows as the binary COPY of mode, exchange, pair_name (text), window_start (timestamptz), min, max,
    open, close and total price (double), tick count, open, close, high and low time (bigint)."""
    return b"".join([_HEADER, *map(_row, windows), _TRAILER])


def _row(window: StoredWindow) -> bytes:
    mode, key, bar = window
    return b"".join(
        (
            _FIELDS.pack(14),
            _text(mode),
            _text(key.exchange),
            _text(key.symbol),
            _NUMBERS.pack(
                *(8, (key.start - _POSTGRES_EPOCH_MS) * 1000),
                *(8, bar.low, 8, bar.high, 8, bar.open, 8, bar.close, 8, bar.total),
                *(8, bar.count, 8, bar.open_time, 8, bar.close_time, 8, bar.high_time, 8, bar.low_time),
            ),
        )
    )


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _TEXT.pack(len(encoded)) + encoded


def window_of(mode: Mode, exchange: str, row: Sequence[Any]) -> StoredWindow:
    """Return the window of a row of pair_name, window_start (Unix ms), open, open_time, high, high_time, low, low_time,
    close, close_time, total, count. The order of receipt is not stored; it is 0, before any tick received since."""
    symbol, start, open_, open_time, high, high_time, low, low_time, close, close_time, total, count = row
    bar = Bar(open_, open_time, 0, high, high_time, low, low_time, close, close_time, 0, total, count)
    return StoredWindow(mode, WindowKey(exchange, symbol, start), bar)
