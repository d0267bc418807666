#!/usr/local/bin/python3 -IS
"""Exit with 0 if what runs in this container can serve: `healthcheck` asks MarketFlow, `healthcheck PORT` connects."""

import os
import socket
import sys

TIMEOUT_S = 4


def main(arguments: list[str]) -> int:
    """Return the exit status; what is wrong goes to standard output, where Docker keeps it."""
    try:
        if arguments:
            socket.create_connection(("127.0.0.1", int(arguments[0])), TIMEOUT_S).close()
            return 0
        answer = ask("/health/ready", int(os.environ.get("MARKETFLOW_SERVER__PORT", "8080")))
    except OSError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    sys.stdout.write(answer[:1000].decode(errors="replace"))
    return 0 if answer.split()[1:2] == [b"200"] else 1


def ask(path: str, port: int) -> bytes:
    """Return the whole answer. Python's HTTP client takes several times as long to import as this takes to run."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            return answer.read()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
