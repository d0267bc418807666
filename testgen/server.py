"""The exchanges on the network: who listens, what a connection is sent, when, and how it ends."""

import random
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import BinaryIO

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer
from gevent.socket import socket as GeventSocket  # noqa: N812 - told apart from the module

from testgen import model
from testgen.faults import FaultyStream
from testgen.render import ReplayStream, Stream, Tape, WalkStream
from testgen.schedule import Schedule
from testgen.settings import Listen, Settings

_BATCH = 2048  # ticks in one write at most: about 128 KiB
_TAPE_LINES = 65536
_PAUSE = 0.002  # seconds between the writes of a fast schedule
_DEBT = 1.0  # seconds that a schedule may fall behind a slow client before it lets go of the rest
_FLOOD_CLOCK = 1_000_000.0  # ticks per second by which a given start time advances when there is no rate
_CONNECTIONS = 256  # per exchange; more wait in the backlog
_PRE_RENDERED_FROM = 10_000  # ticks per second
_SPLIT_PAUSE = 0.001  # seconds
_LAST_WORDS = 1.0  # seconds that a client has to take the beginning of a line before it is cut
_NEWLINE = 0x0A
_REBIND_PAUSE = 0.1  # seconds


class Session:
    """What one client is sent. A cut suspends it, and the next connection goes on where it was."""

    def __init__(self, stream: Stream, clock_offset: int) -> None:
        """`clock_offset` is in milliseconds."""
        self.stream = stream
        self.pending = b""
        self._clock_offset = clock_offset
        self._latest = 0

    def fill(self, ticks: int) -> bool:
        """Render up to `ticks` ticks if nothing is pending. False at the end of the stream."""
        if not self.pending:
            self._latest = max(self._latest, time.time_ns() // 1_000_000)
            self.pending = self.stream.render(ticks, self._latest + self._clock_offset)
        return bool(self.pending)


class Connection:
    """One client: writes a session to its socket, by the schedule, until the end or a cut."""

    def __init__(self, client: GeventSocket, session: Session, settings: Settings, record: BinaryIO | None) -> None:
        """`record` gets every byte that the kernel took."""
        self._client = client
        self._session = session
        self._settings = settings
        self._record = record
        self._source = random.Random(f"{settings.seed}/writes")  # noqa: S311 - faults, not secrets
        self._start = time.monotonic()
        self._first = session.stream.position
        self._taken = 0  # bytes, by the kernel
        self._mid_line = False

    def run(self) -> bool:
        """Send until the end of the stream or a cut. True when it was cut and the session can go on."""
        faults = self._settings.faults
        if gevent.with_timeout(faults.cut_every or None, self._send_all, timeout_value=False):
            return False
        if faults.cut_mid_line and not self._mid_line:
            gevent.with_timeout(_LAST_WORDS, self._send_part_of_line, timeout_value=None)
        return True

    def _send_part_of_line(self) -> None:
        if self._session.fill(1):
            line = self._session.pending.partition(b"\n")[0]
            self._send(line[: self._source.randint(1, max(1, len(line) - 1))])

    def _send_all(self) -> bool:
        """Send to the end of the stream and True, or False where the connection is to be cut."""
        faults, session = self._settings.faults, self._session
        schedule = Schedule(self._settings.rate, self._settings.bursts) if self._settings.rate else None
        stall_at = self._start + faults.stall_every if faults.stall_every else float("inf")
        while True:
            if time.monotonic() >= stall_at:
                gevent.sleep(faults.stall_for)
                self._start += faults.stall_for
                stall_at = time.monotonic() + faults.stall_every
            sent = session.stream.position - self._first
            limit = self._limit(sent)
            if limit <= 0:
                return False
            due = min(limit, _BATCH if schedule is None else self._due(schedule, sent))
            if due:
                if not session.fill(due):
                    if not self._settings.close_at_end:
                        self._wait_for_client()
                    return True
                self._send_pending()
            # Also when nothing is to be waited for: a write that never blocks would hold up every other client.
            gevent.sleep(self._pause(schedule, due))

    def _pause(self, schedule: Schedule | None, due: int) -> float:
        if schedule is None or due >= _BATCH:
            return 0.0
        sent = self._session.stream.position - self._first
        return max(_PAUSE, self._start + schedule.at(sent) - time.monotonic())

    def _limit(self, sent: int) -> int:
        faults = self._settings.faults
        if faults.endless_after and sent >= faults.endless_after:
            while True:
                self._send(b"x" * 65536)
                gevent.sleep(0)
        limit = faults.cut_after - sent if faults.cut_after else _BATCH
        return min(limit, faults.endless_after - sent) if faults.endless_after else limit

    def _due(self, schedule: Schedule, sent: int) -> int:
        elapsed = time.monotonic() - self._start
        self._start += max(0.0, elapsed - schedule.at(sent) - _DEBT)
        return max(0, min(_BATCH, schedule.due(time.monotonic() - self._start) - sent))

    def _send_pending(self) -> None:
        """Send what is pending; where a cut interrupts it, the line that was cut stays pending, whole."""
        session, split = self._session, self._settings.faults.split
        data, before = session.pending, self._taken
        try:
            if split and self._source.random() < split:
                at = self._source.randrange(len(data))
                self._send(data[:at])
                gevent.sleep(_SPLIT_PAUSE)
                self._send(data[at:])
            else:
                self._send(data)
        finally:
            done = self._taken - before
            session.pending = data[data.rfind(b"\n", 0, done) + 1 :] if done < len(data) else b""

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            taken = self._client.send(view)
            self._taken += taken
            self._mid_line = view[taken - 1] != _NEWLINE
            if self._record is not None:
                self._record.write(view[:taken])
            view = view[taken:]

    def _wait_for_client(self) -> None:
        while self._client.recv(65536):
            pass


class Exchange:
    """One listening address and the sessions of its clients, which share nothing but their tape."""

    def __init__(self, at: Listen, settings: Settings) -> None:
        """`settings.seed` must not be 0 any more."""
        self.name = at.name
        self.address = (at.host, at.port)
        self._settings = settings
        pairs, walk = settings.pairs, settings.walk
        # Whole rounds, and as many steps whatever the stride: exchanges of one seed turn back at the same prices.
        self._tape_lines = max(1, _TAPE_LINES // len(pairs) // walk.stride) * len(pairs)
        self._tape = Tape(model.ticks(at.name, pairs, settings.seed, walk, settings.prices), self._tape_lines)
        self._suspended: deque[Session] = deque()
        self._clients = Pool(_CONNECTIONS)
        self._connections = 0

    def listen(self) -> None:
        """Bind and accept. Raises OSError."""
        if not self._settings.replay and not 0 < self._settings.rate < _PRE_RENDERED_FROM:
            self._tape.fill(self._tape_lines)
        self._listen()

    def stop(self) -> None:
        """Refuse clients and drop those that are there."""
        self._server.stop(timeout=0)

    def _listen(self) -> None:
        host, port = self.address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with ExitStack() as on_error:
            listener = on_error.enter_context(GeventSocket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(128)
            self.address = (host, listener.getsockname()[1])
            self._server = StreamServer(listener, self._serve, spawn=self._clients)
            self._server.start()
            on_error.pop_all()

    def _serve(self, client: GeventSocket, _address: object) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections += 1
        with ExitStack() as stack:
            record = self._record(stack)
            session = self._suspended.popleft() if self._suspended else self._session()
            try:
                cut = Connection(client, session, self._settings, record).run()
            except (ConnectionError, TimeoutError):
                return  # the client left; how it said so does not matter
            if cut:
                self._suspended.append(session)
                if self._settings.faults.refuse_for:
                    self._refuse()

    def _session(self) -> Session:
        settings, faults = self._settings, self._settings.faults
        stream: Stream
        if settings.replay:
            path = settings.replay_path(self.name)
            stream = ReplayStream(path, settings.count, retime=settings.retime)
        else:
            stream = WalkStream(self._tape, settings.count, self._clock())
        if faults.touches_lines:
            source = random.Random(f"{settings.seed}/{self.name}/faults")  # noqa: S311 - faults, not secrets
            stream = FaultyStream(stream, faults, source)
        return Session(stream, faults.clock_offset)

    def _clock(self) -> Callable[[int], int] | None:
        settings = self._settings
        if not settings.start_time:
            return None
        schedule = Schedule(settings.rate or _FLOOD_CLOCK, settings.bursts)
        start = settings.start_time + settings.faults.clock_offset
        return lambda tick: start + int(schedule.at(tick) * 1000 + 1e-6)

    def _record(self, stack: ExitStack) -> BinaryIO | None:
        if not self._settings.record:
            return None
        path = self._settings.record_path(self.name, self._connections)
        # Unbuffered, so that the file is complete whenever it is read.
        return stack.enter_context(path.open("wb", buffering=0))

    def _refuse(self) -> None:
        if not self._server.closed:
            self._server.close()
            gevent.spawn_later(self._settings.faults.refuse_for, self._listen_again)

    def _listen_again(self) -> None:
        while True:
            try:
                return self._listen()
            except OSError:
                gevent.sleep(_REBIND_PAUSE)
