"""The book of windows of one feed: what is known of each, and what of that is not safely written yet."""

from collections.abc import Iterator, Mapping

import msgspec

from marketflow.domain.bar import Bar, merge
from marketflow.domain.folding import SliceBars
from marketflow.domain.period import floor
from marketflow.domain.summary import Summary, merge_optional, of_bar
from marketflow.domain.window import EventClock, WindowKey


class OpenWindow:
    """One window of one pair: the ticks since this node took it up, besides what earlier runs left of it.

    What was left may be known from the journal, from the stored row, or from both. States of one window only grow, so
    of two that include each other the one with more ticks is right. A journalled state is whole when it includes
    the row; one that is not was begun while the row could not be read, and has none of its ticks. So that this stays
    true, a window is not stored while the journal may have such a state of it, unless the journal is away.
    """

    __slots__ = ("_left", "_own", "_whole", "journal_partial", "row_known", "stored")

    def __init__(self, *, row_known: bool) -> None:
        self._own: Bar | None = None
        self._left: Bar | None = None
        self._whole = row_known
        self.journal_partial = False
        """Whether the journal may have a state that is not whole."""
        self.row_known = row_known
        """Whether the row, if there is one, has been looked up."""
        self.stored = 0
        """Ticks in the stored row, as far as is known."""

    def add(self, bar: Bar) -> None:
        """Add ticks that were received now."""
        self._own = bar if self._own is None else merge(self._own, bar)

    def take_up_row(self, row: Bar | None) -> None:
        """Take up the stored row, None when there is none; once, before anything is stored."""
        if row is not None:
            self._left = _larger(self._left, row) if self._whole else _merged(self._left, row)
            self.stored = row.count
        self.row_known = self._whole = True

    def take_up_journal(self, state: Bar, *, whole: bool) -> None:
        """Take up what the journal has."""
        if whole:
            self._left = _larger(self._left, state)
            self._whole = True
        else:
            self._left = _merged(self._left, state)
            self.journal_partial = True

    @property
    def left(self) -> Bar | None:
        """What earlier runs left."""
        return self._left

    @property
    def has_left(self) -> bool:
        """Whether earlier runs are known to have left some of it."""
        return self._left is not None

    @property
    def whole(self) -> bool:
        """Whether the state includes the stored row."""
        return self._whole

    @property
    def bar(self) -> Bar:
        """The whole state."""
        state = _merged(self._left, self._own)
        if state is None:
            raise ValueError("a window without a tick has no state")
        return state


def _larger(a: Bar | None, b: Bar) -> Bar:
    return b if a is None or b.count > a.count else a


def _merged(a: Bar | None, b: Bar | None) -> Bar | None:
    if a is None or b is None:
        return a or b
    return merge(a, b)


class _Group:
    """The windows of one start, by symbol, and which of them changed since they were last journalled and stored."""

    __slots__ = ("to_journal", "to_store", "windows")

    def __init__(self) -> None:
        self.windows: dict[str, OpenWindow] = {}
        self.to_journal: set[str] = set()
        self.to_store: set[str] = set()


# A window as it is journalled: whether its state is whole, and the state.
_decode_journalled = msgspec.msgpack.Decoder(tuple[bool, Bar]).decode
_encode = msgspec.msgpack.Encoder().encode


class Book:
    """The windows of one exchange in one mode that may still change, or are not stored yet."""

    def __init__(self, exchange: str, interval: int) -> None:
        self._exchange = exchange
        self._interval = interval
        self._groups: dict[int, _Group] = {}
        self._rowless: set[int] = set()  # starts of windows whose row must be looked up before they may be stored
        self._complete_from = 0  # once rows are known: a window from here on has no row that is not in the book
        self.clock = EventClock()
        self.journal_known = False
        """Whether what earlier runs journalled has been taken up; before that nothing may be journalled."""
        self.rows_known = False
        """Whether the recent rows have been looked up once."""
        self.left_to_journal = 0
        """Windows that only the journal has, because they were too many for the memory."""
        self._only_journalled_before = 0

    def add(self, bars: SliceBars) -> int:
        """Add the bars of a batch, all of them or (when it raises) none; return the newest timestamp in them."""
        newest = 0
        windows: list[tuple[str, int, Bar]] = []
        for symbol, slices in bars.items():
            for start, bar in slices.items():
                windows.append((symbol, start - start % self._interval, bar))
                newest = max(newest, bar.close_time)
        for symbol, start, bar in windows:
            group = self._group(start)
            self._window(group, symbol, start).add(bar)
            group.to_journal.add(symbol)
            group.to_store.add(symbol)
        return newest

    def take_up_journal(self, journalled: Mapping[WindowKey, bytes]) -> int:
        """Take up what earlier runs journalled; return the number of states that cannot be read, which are left out."""
        unreadable = 0
        for key, state in journalled.items():
            try:
                whole, bar = _decode_journalled(state)
            except msgspec.DecodeError:
                unreadable += 1
                continue
            group = self._group(key.start)
            self._window(group, key.symbol, key.start).take_up_journal(bar, whole=whole)
            group.to_store.add(key.symbol)
            if not whole:
                group.to_journal.add(key.symbol)  # with its row, as soon as that is known
        self.journal_known = True
        return unreadable

    def take_up_rows(self, rows: Mapping[WindowKey, Bar], since: int) -> None:
        """Take up all rows that start at or after `since` (Unix ms), where the row of a window is not known yet."""
        first = not self.rows_known
        for start, group in self._groups.items():
            if start >= since:
                for symbol, window in group.windows.items():
                    if not window.row_known:
                        window.take_up_row(rows.get(WindowKey(self._exchange, symbol, start)))
                        group.to_journal.add(symbol)  # it is whole now
                    if window.bar.count == window.stored:
                        group.to_store.discard(symbol)
        self._rowless = {start for start in self._rowless if start < since}
        if first:
            for key, bar in rows.items():
                windows = self._group(key.start).windows
                if key.symbol not in windows:
                    window = windows[key.symbol] = OpenWindow(row_known=False)
                    window.take_up_row(bar)
            self.rows_known = True
            self._complete_from = since

    def rowless(self) -> int | None:
        """Return the earliest start of a window whose row must be looked up before it may be stored."""
        return min(self._rowless, default=None)

    def take_to_journal(self) -> dict[WindowKey, bytes]:
        """Return what is to be journalled; then either `journalled` or `untake` it."""
        taken: dict[WindowKey, bytes] = {}
        for start, group in self._groups.items():
            later: set[str] = set()
            for symbol in group.to_journal:
                window = group.windows[symbol]
                if start < self._only_journalled_before and not window.has_left:
                    later.add(symbol)  # the journal may have a state that is not in this one
                    continue
                window.journal_partial |= not window.whole
                taken[WindowKey(self._exchange, symbol, start)] = _encode((window.whole, window.bar))
            group.to_journal = later
        return taken

    def journalled(self, states: Mapping[WindowKey, bytes]) -> None:
        """Note that these states are in the journal."""
        for key, state in states.items():
            group = self._groups.get(key.start)
            window = None if group is None else group.windows.get(key.symbol)
            if window is not None and window.journal_partial:
                window.journal_partial = not _decode_journalled(state)[0]

    def is_journalled(self) -> bool:
        """Tell whether the journal has everything that the book has."""
        return self.journal_known and not any(group.to_journal for group in self._groups.values())

    def untake(self, keys: Mapping[WindowKey, bytes]) -> None:
        """Mark windows as still to be journalled."""
        for key in keys:
            group = self._groups.get(key.start)
            if group is not None:
                group.to_journal.add(key.symbol)

    def leave_to_journal(self, before: int, most: int) -> None:
        """Drop windows that are not stored and end at or before `before` (Unix ms), oldest first, at most about `most`
        of them, where the journal has them as they are. Nothing that is received may fall into them any more."""
        for start in sorted(self._groups):
            group = self._groups[start]
            if most <= 0 or start + self._interval > before or group.to_journal or not self.journal_known:
                return
            if group.to_store:
                self.left_to_journal += len(group.windows)
                self._only_journalled_before = max(self._only_journalled_before, start + self._interval)
                most -= len(group.windows)
                del self._groups[start]

    def take_back(self, journalled: Mapping[WindowKey, bytes], most: int) -> int:
        """Take up windows that were left to the journal, oldest first, at most `most`; return the number of states that
        cannot be read."""
        left = sorted(
            (key for key in journalled if key.start < self._only_journalled_before and not self._has_left(key)),
            key=lambda key: key.start,
        )
        unreadable = self.take_up_journal({key: journalled[key] for key in left[:most]})
        self.left_to_journal = len(left[most:])
        if not self.left_to_journal:
            self._only_journalled_before = 0
        return unreadable

    def _has_left(self, key: WindowKey) -> bool:
        group = self._groups.get(key.start)
        return group is not None and key.symbol in group.windows and group.windows[key.symbol].has_left

    def due(self, time: int | None, *, amended: bool = True, journal_up: bool = True) -> dict[WindowKey, Bar]:
        """Return the changed windows that end at or before `time` (Unix ms; None: all of them, also the open ones).

        Without `amended`, those that were stored before are left out. While the journal is up, those that it has
        without their row wait until it has them with it.
        """
        return {
            WindowKey(self._exchange, symbol, start): window.bar
            for start, group in sorted(self._groups.items())
            if time is None or start + self._interval <= time
            for symbol in group.to_store
            if (window := group.windows[symbol]).row_known
            if not (window.journal_partial and journal_up)
            if amended or not window.stored
        }

    def stored(self, windows: Mapping[WindowKey, Bar]) -> None:
        """Note that these states are stored; what changed since remains due."""
        for key, bar in windows.items():
            group = self._groups[key.start]
            window = group.windows[key.symbol]
            window.stored = bar.count
            if window.bar.count == bar.count:
                group.to_store.discard(key.symbol)

    def settled(self, before: int) -> list[WindowKey]:
        """Return the windows that end at or before `before` (Unix ms) and are stored, and drop them from the book.

        None while the journal is unknown: what it has of a window must be added to what is known of it, and a row
        alone does not tell whether it was.
        """
        keys: list[WindowKey] = []
        if not self.journal_known:
            return keys
        for start in [start for start in self._groups if start + self._interval <= before]:
            group = self._groups[start]
            if not group.to_store:
                keys += [WindowKey(self._exchange, symbol, start) for symbol in group.windows]
                del self._groups[start]
                self._complete_from = max(self._complete_from, start + self._interval)
        return keys

    def waiting(self) -> int:
        """Return the number of windows that are not stored as they are."""
        return sum(len(group.to_store) for group in self._groups.values())

    def summary(self, symbol: str, start: int, end: int) -> tuple[Summary | None, list[int]]:
        """Return what the windows of a symbol with `start <= their start < end` amount to, and their starts."""
        result: Summary | None = None
        starts: list[int] = []
        for at, group in self._groups.items():
            if start <= at < end and symbol in group.windows:
                result = merge_optional(result, of_bar(group.windows[symbol].bar))
                starts.append(at)
        return result, starts

    def left(self, symbol: str, start: int) -> Summary | None:
        """Return what earlier runs left of the windows of a symbol that start at or after `start`."""
        result: Summary | None = None
        for at, group in self._groups.items():
            left = group.windows[symbol].left if at >= start and symbol in group.windows else None
            if left is not None:
                result = merge_optional(result, of_bar(left))
        return result

    def bars(self, symbol: str) -> Iterator[Bar]:
        """Yield the states of a symbol's windows."""
        for group in self._groups.values():
            if symbol in group.windows:
                yield group.windows[symbol].bar

    def _group(self, start: int) -> _Group:
        group = self._groups.get(start)
        if group is None:
            group = self._groups[start] = _Group()
        return group

    def _window(self, group: _Group, symbol: str, start: int) -> OpenWindow:
        window = group.windows.get(symbol)
        if window is None:
            row_known = self.rows_known and start >= self._complete_from
            window = group.windows[symbol] = OpenWindow(row_known=row_known)
            if not row_known:
                self._rowless.add(start)
        return window


def first_start(time: int, interval: int, max_skew: int) -> int:
    """Return the start of the earliest window that a tick received at `time` may fall into (Unix ms)."""
    return floor(time - max_skew, interval)
