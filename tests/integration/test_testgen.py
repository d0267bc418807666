"""The command testgen as its users meet it: a process, its sockets, its files and its exit status."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

TESTGEN = Path(sys.executable).with_name("testgen")
REPOSITORY = Path(__file__).parents[2]
LINE = re.compile(rb'\{"symbol":"([A-Z0-9]+)","price":([0-9.e-]+),"timestamp":(\d{13})\}\n')
DEADLINE = 20.0  # seconds

Start = Callable[..., "Generator"]


class Generator:
    """A running testgen and the ports of its exchanges, by name."""

    def __init__(self, command: list[str], exchanges: int, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        assert self.process.stdout is not None
        said = [self.process.stdout.readline().split() for _ in range(exchanges)]
        assert [words[0] for words in said] == ["listening"] * exchanges
        self.ports = {words[1]: int(words[2].rpartition(":")[2]) for words in said}

    def connect(self, exchange: str = "a") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.ports[exchange]), DEADLINE)
        client.settimeout(DEADLINE)
        return client

    def stop(self, signum: int = signal.SIGTERM) -> None:
        self.process.send_signal(signum)
        out, err = self.process.communicate(timeout=DEADLINE)
        assert (self.process.returncode, out, err) == (0, "", "")


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Generator] = []

    def _start(*arguments: str, names: str = "a") -> Generator:
        listen = [f"--listen={name}=127.0.0.1:0" for name in names]
        running.append(Generator([str(TESTGEN), "--seed=5", *listen, *arguments], len(names)))
        return running[-1]

    yield _start
    for generator in running:
        if generator.process.poll() is None:
            generator.stop()
        generator.process.communicate(timeout=DEADLINE)


def read(client: socket.socket, lines: int) -> bytes:
    """What comes until there are `lines` lines, or the end; to the last byte that came."""
    parts, count = [], 0
    while count < lines and (part := client.recv(1 << 16)):
        parts.append(part)
        count += part.count(b"\n")
    return b"".join(parts)


def read_all(client: socket.socket) -> bytes:
    with client:
        return read(client, sys.maxsize)


def ticks(data: bytes) -> list[tuple[bytes, bytes, int]]:
    """Symbol, price, timestamp of each line; every byte must belong to one."""
    assert LINE.sub(b"", data) == b""
    return [(symbol, price, int(stamp)) for symbol, price, stamp in LINE.findall(data)]


def prices(data: bytes) -> list[tuple[bytes, bytes]]:
    return [tick[:2] for tick in ticks(data)]


def test_each_exchange_sends_its_lines_with_the_time_of_sending(start: Start) -> None:
    before = time.time_ns() // 1_000_000
    generator = start("--rate=1000", "--count=300", "--close-at-end", names="abc")
    feeds = {name: ticks(read_all(generator.connect(name))) for name in "abc"}
    assert [len(feed) for feed in feeds.values()] == [300] * 3
    for feed in feeds.values():
        stamps = [stamp for _, _, stamp in feed]
        assert stamps == sorted(stamps)
        assert before <= stamps[0]
        assert 290 <= stamps[-1] - stamps[0] <= time.time_ns() // 1_000_000 - before
    assert len({tuple(tick[:2] for tick in feed) for feed in feeds.values()}) == 3
    assert {json.dumps(float(price)) for _, price, _ in feeds["a"]} == {price.decode() for _, price, _ in feeds["a"]}


def test_a_seed_repeats_symbols_and_prices_and_a_start_time_all_of_it(start: Start) -> None:
    arguments = ("--rate=400", "--count=100", "--close-at-end", "--start-time=1763827200123")
    generator = start(*arguments)
    first = read_all(generator.connect())
    assert first == read_all(generator.connect()) == read_all(start(*arguments).connect())
    assert [stamp for _, _, stamp in ticks(first)] == [1763827200123 + tick * 1000 // 400 for tick in range(100)]
    other = read_all(start(*arguments, "--seed=6").connect())
    assert prices(other) != prices(first)
    assert [stamp for _, _, stamp in ticks(other)] == [stamp for _, _, stamp in ticks(first)]


def test_after_the_last_tick_the_connection_stays_open_and_idle(start: Start) -> None:
    with start("--rate=0", "--count=1000").connect() as client:
        assert len(ticks(read(client, 1000))) == 1000
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_five_thousand_symbols_are_all_there(start: Start) -> None:
    client = start("--symbol-count=5000", "--rate=0", "--count=5000", "--close-at-end").connect()
    assert {symbol for symbol, _, _ in ticks(read_all(client))} == {b"SYM%04dUSDT" % n for n in range(5000)}


def test_a_flood_is_over_a_million_ticks_per_second_and_memory_stays_bounded(start: Start) -> None:
    generator = start("--rate=0", names="abc")
    clients = [generator.connect(name) for name in "abc"]
    process = psutil.Process(generator.process.pid)
    for client in clients:
        read(client, 100_000)
    memory, used, began = process.memory_info().rss, sum(process.cpu_times()[:2]), time.monotonic()
    for _ in range(10):
        for client in clients:
            read(client, 100_000)
    took, used = time.monotonic() - began, sum(process.cpu_times()[:2]) - used
    assert 3_000_000 / took > 1_000_000
    assert used / 3_000_000 < 0.25e-6
    assert process.memory_info().rss - memory < 20_000_000
    for client in clients:
        client.close()


def test_a_client_that_does_not_read_costs_the_others_nothing(start: Start) -> None:
    generator = start("--rate=0")
    with generator.connect() as slow, generator.connect() as fast:
        assert read(fast, 500_000).count(b"\n") >= 500_000
        assert psutil.Process(generator.process.pid).memory_info().rss < 150_000_000
        head = read(slow, 100_000)
    assert len(ticks(head[: head.rindex(b"\n") + 1])) >= 100_000


def test_a_record_is_what_was_sent_and_can_be_replayed(start: Start, tmp_path: Path) -> None:
    record = tmp_path / "record"
    faults = ("--garbage=0.1", "--duplicates=0.1", "--late=0.1", "--reorder=0.1", "--split=0.5")
    generator = start("--rate=2000", "--count=300", "--close-at-end", f"--record={record}", *faults, names="ab")
    sent = {name: read_all(generator.connect(name)) for name in "ab"}
    again = read_all(generator.connect("a"))
    assert (tmp_path / "record.a.jsonl").read_bytes() == sent["a"]
    assert (tmp_path / "record.b.jsonl").read_bytes() == sent["b"]
    assert (tmp_path / "record.a.2.jsonl").read_bytes() == again
    replay = start("--rate=0", "--close-at-end", f"--replay={record}", names="ab")
    assert {name: read_all(replay.connect(name)) for name in "ab"} == sent
    one = start("--rate=0", "--close-at-end", f"--replay={record}.b.jsonl")
    assert read_all(one.connect()) == sent["b"]


def test_a_replay_can_have_the_time_of_sending(start: Start, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b'{"symbol":"A","price":1.5,"timestamp":1000000000000}\n' * 20)
    before = time.time_ns() // 1_000_000
    replay = start("--rate=0", "--close-at-end", f"--replay={tmp_path / 'old'}", "--retime", "--clock-offset=-5000")
    sent = ticks(read_all(replay.connect()))
    assert len(sent) == 20
    assert all(before - 5000 <= stamp <= time.time_ns() // 1_000_000 - 5000 for _, _, stamp in sent)


@pytest.mark.parametrize("cut", ["--cut-after=30", "--cut-every=61ms"])
def test_a_cut_loses_no_tick_and_may_leave_half_a_line(start: Start, tmp_path: Path, cut: str) -> None:
    arguments = ("--rate=500", "--count=100", "--close-at-end", "--reorder=0.3", "--start-time=1763827200123")
    whole = read_all(start(*arguments).connect())
    record = tmp_path / "record"
    generator = start(*arguments, cut, "--cut-mid-line", "--split=1", f"--record={record}")
    position = number = 0
    while position < len(whole):
        data = read_all(generator.connect())
        number += 1
        assert (tmp_path / f"record.a{f'.{number}' if number > 1 else ''}.jsonl").read_bytes() == data
        assert data == whole[position : position + len(data)]
        assert position + len(data) == len(whole) or not data.endswith(b"\n")
        position += data.rfind(b"\n") + 1
    assert number >= 3


def test_a_cut_of_a_client_that_does_not_read_loses_no_tick_either(start: Start, tmp_path: Path) -> None:
    arguments = ("--rate=0", "--count=400000", "--close-at-end", "--start-time=1763827200123")
    whole = read_all(start(*arguments).connect())
    generator = start(*arguments, "--cut-every=200ms", "--cut-mid-line", f"--record={tmp_path / 'record'}")
    slow = generator.connect()
    data = slow.recv(1)
    wait_until_cut(generator)
    data += read_all(slow)
    assert data == whole[: len(data)] == (tmp_path / "record.a.jsonl").read_bytes()
    assert 0 < len(data) < len(whole)
    position = data.rfind(b"\n") + 1
    data = read_all(generator.connect())
    assert len(data) > 0
    assert data == whole[position : position + len(data)]


def wait_until_cut(generator: Generator) -> None:
    deadline = time.monotonic() + DEADLINE
    process = psutil.Process(generator.process.pid)
    while any(connection.status == psutil.CONN_ESTABLISHED for connection in process.net_connections("tcp")):
        assert time.monotonic() < deadline


def connect_when_accepted(generator: Generator) -> socket.socket:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return generator.connect()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline


def test_connections_are_refused_for_a_time_after_a_cut(start: Start) -> None:
    generator = start("--rate=0", "--cut-after=5", "--refuse-for=300ms")
    assert len(ticks(read_all(generator.connect()))) == 5
    cut = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        generator.connect()
    client = connect_when_accepted(generator)
    assert time.monotonic() - cut > 0.2
    assert len(ticks(read_all(client))) == 5


def test_a_stall_is_a_silence_and_not_a_backlog(start: Start) -> None:
    client = start("--rate=500", "--count=200", "--close-at-end", "--stall-every=100ms", "--stall-for=300ms").connect()
    stamps = [stamp for _, _, stamp in ticks(read_all(client))]
    gaps = [after - before for before, after in pairwise(stamps)]
    assert max(gaps) >= 290
    assert stamps[-1] - stamps[0] >= 290 * sum(gap >= 290 for gap in gaps) + 380


def test_writes_are_split_anywhere(start: Start) -> None:
    with start("--rate=1000", "--count=200", "--split=1", "--close-at-end").connect() as client:
        parts = list(iter(lambda: client.recv(1 << 16), b""))
    assert len(ticks(b"".join(parts))) == 200
    assert sum(not part.endswith(b"\n") for part in parts) > 10


def test_a_line_without_end_never_ends(start: Start) -> None:
    with start("--rate=0", "--endless-after=10").connect() as client:
        data = read(client, 10)
        while len(data) < 2_000_000:
            data += client.recv(1 << 16)
    assert data.count(b"\n") == 10
    assert len(ticks(data[: data.rindex(b"\n") + 1])) == 10


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_under_load(start: Start, signum: signal.Signals) -> None:
    generator = start("--rate=0", names="ab")
    with generator.connect("a") as reading, generator.connect("b"):
        read(reading, 1000)
        began = time.monotonic()
        generator.stop(signum)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "fast"], "testgen: --rate: expected a number, got text\n"),
        (["--listen", "nowhere"], "testgen: --listen: expected [NAME=]HOST:PORT, got 'nowhere'\n"),
        (["--spead", "5"], "testgen: No such option '--spead'."),
        (["--rate"], "testgen: Option '--rate' requires an argument.\n"),
        (["more"], "testgen: Got unexpected extra argument (more)\n"),
        (["--profile", "none.toml"], "testgen: --profile: cannot read none.toml: No such file or directory\n"),
    ],
)
def test_a_wrong_argument_is_one_line_and_status_2(arguments: list[str], message: str) -> None:
    ended = subprocess.run([TESTGEN, *arguments], capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(message)
    assert ended.stderr.count("\n") == 1


def test_a_taken_port_is_one_line_and_status_1(start: Start) -> None:
    address = f"127.0.0.1:{start().ports['a']}"
    ended = subprocess.run(
        [TESTGEN, "--listen", address], capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    assert (ended.returncode, ended.stderr) == (1, f"testgen: cannot listen on {address}: Address already in use\n")


@pytest.mark.parametrize("flag", ["--exit-with-parent", "--exit-with-parent=$$"])
def test_it_can_end_with_its_parent(flag: str) -> None:
    script = f'"{TESTGEN}" {flag} --listen 127.0.0.1:0 & echo $!; wait'
    with subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        child = psutil.Process(int(shell.stdout.readline()))
        assert shell.stdout.readline().startswith("listening")
        assert child.is_running()
        shell.kill()
        assert shell.stdout.read() == ""  # the end, once the child has left this pipe too


@pytest.mark.parametrize("name", ["exchange1", "exchange2", "exchange3"])
def test_each_source_starts_with_one_command(name: str) -> None:
    generator = Generator([str(REPOSITORY / "sources" / name / "run")], 1, {"LISTEN_PORT": "0"})
    with generator.connect(name) as client:
        assert LINE.match(read(client, 3))
    generator.stop()
