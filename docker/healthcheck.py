#!/usr/local/bin/python3 -IS
"""Exit with 0 when what runs in this container can serve: `healthcheck` asks MarketFlow, `healthcheck PORT` connects."""

import http.client
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
        port = int(os.environ.get("MARKETFLOW_SERVER__PORT", "8080"))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        sys.stdout.write(f"{answer.status} {answer.read(1000).decode(errors='replace')}\n")
        return 0 if answer.status == 200 else 1
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
