"""The reader that MarketFlow is compared with: gevent sockets and msgspec's decode_lines, nothing else.

`python -m tests.load.bare_reader SECONDS PORT...` prints, as JSON, the ticks, the seconds and the CPU seconds.
"""

import json
import sys
import time

import gevent
import msgspec
from gevent.socket import create_connection

_CHUNK = 64 * 1024


class _Tick(msgspec.Struct, gc=False):
    symbol: str
    price: float
    timestamp: int


class _Reader:
    def __init__(self) -> None:
        self.ticks = 0
        self._decode = msgspec.json.Decoder(_Tick).decode_lines

    def read(self, port: int) -> None:
        rest = b""
        with create_connection(("127.0.0.1", port)) as connection:
            while chunk := connection.recv(_CHUNK):
                cut = chunk.rfind(b"\n") + 1
                if cut:
                    self.ticks += len(self._decode(rest + chunk[:cut]))
                    rest = b""
                rest += chunk[cut:]
                gevent.sleep(0)


def main() -> None:
    """Read for the given seconds, after one to get going."""
    seconds, *ports = sys.argv[1:]
    reader = _Reader()
    greenlets = [gevent.spawn(reader.read, int(port)) for port in ports]
    gevent.sleep(1.0)
    ticks, cpu, began = reader.ticks, time.process_time(), time.monotonic()
    gevent.sleep(float(seconds))
    took = time.monotonic() - began
    assert not any(greenlet.dead for greenlet in greenlets), "a feed has ended"
    print(json.dumps({"ticks": reader.ticks - ticks, "seconds": took, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main()
