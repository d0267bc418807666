"""The load of HTTP: requests rendered beforehand, a given number of keep-alive connections, one loop over epoll.

Each connection sends its next request when the answer to its last one has arrived. `python -m tests.load.requests`
reads a job as JSON from its arguments and prints its result as JSON, so that it runs in a process of its own.
"""

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

HOST = "127.0.0.1"
_HEAD_END = b"\r\n\r\n"
_ANSWER_TIMEOUT = 10.0  # seconds


class Load(NamedTuple):
    """What the clients saw in a stretch of time."""

    requests: int
    errors: int
    seconds: float
    cpu: float
    """CPU seconds of the client."""
    latencies: list[float]
    """Seconds, sorted; those still waiting at the end count with their age."""
    by_connection: list[int]
    """Answers by connection."""

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.requests / self.seconds

    def latency(self, share: float) -> float:
        """Return the latency, in ms, that `share` of the requests do not exceed."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))] * 1000


class Client:
    """One keep-alive connection, asked in turn."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=_ANSWER_TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> bytes:
        """Return the whole answer."""
        self.socket.sendall(request)
        answer = b""
        while (need := missing(answer)) > 0:
            data = self.socket.recv(max(need, 65536))
            if not data:
                raise ConnectionError("the server closed the connection")
            answer += data
        return answer

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def rendered(path: str) -> bytes:
    """Return GET of a path."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def missing(answer: bytes) -> int:
    """Return how many bytes an answer lacks at least; 0 when it is whole."""
    end = answer.find(_HEAD_END)
    if end < 0:
        return 1
    at = answer.index(b"ength: ", 0, end + 2)  # of Content-Length, in whatever case
    length = int(answer[at + 7 : answer.index(b"\r", at)])
    return end + 4 + length - len(answer)


def run(port: int, paths: Sequence[str], connections: int, seconds: float) -> Load:
    """Ask the paths in turn over so many connections, in a process of its own."""
    job = json.dumps({"port": port, "paths": list(paths), "connections": connections, "seconds": seconds})
    done = subprocess.run([sys.executable, "-m", "tests.load.requests", job], stdout=subprocess.PIPE, check=True)
    return Load(*json.loads(done.stdout))


def _load(port: int, paths: Sequence[str], connections: int, seconds: float) -> Load:
    requests = [rendered(path) for path in paths]
    clients = [Client(port) for _ in range(connections)]
    for client in clients:
        client.socket.setblocking(False)
    poll = select.epoll()
    now = time.perf_counter
    sockets = {client.socket.fileno(): client.socket for client in clients}
    sent: dict[int, float] = {}
    partial: dict[int, bytes] = {}
    answered = dict.fromkeys(sockets, 0)
    latencies: list[float] = []
    errors = turn = 0
    cpu, began = time.process_time(), now()
    for number, each in sockets.items():
        poll.register(number, select.EPOLLIN)
        sent[number] = now()
        each.send(requests[turn % len(requests)])
        turn += 1
    end = began + seconds
    while now() < end:
        for number, _ in poll.poll(0.1):
            answer = sockets[number].recv(262144)
            if not answer:
                raise ConnectionError("the server closed the connection")
            if number in partial:
                answer = partial.pop(number) + answer
            if missing(answer) > 0:
                partial[number] = answer
                continue
            time_now = now()
            latencies.append(time_now - sent[number])
            answered[number] += 1
            errors += answer[9:12] != b"200"
            sent[number] = time_now
            sockets[number].send(requests[turn % len(requests)])
            turn += 1
    stopped = now()
    done = len(latencies)
    latencies += [stopped - time_sent for time_sent in sent.values()]
    latencies.sort()
    return Load(done, errors, stopped - began, time.process_time() - cpu, latencies, sorted(answered.values()))


def main() -> None:
    """Do the job of the arguments."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    json.dump(_load(**job), sys.stdout)


if __name__ == "__main__":
    main()
