"""Fuzzes framing, decoding and folding of the feed offline, guided by coverage with atheris, or by plain mutation.

    python tests/fuzz/fuzz_feed.py 1000000                    # a million mutated inputs
    python tests/fuzz/fuzz_feed.py 1000000 --atheris          # as many, guided by coverage; needs `pip install atheris`

Each input is a connection: chunks of any bytes. What must hold is in `tests.support.feed_check`. It ends with status 1,
and the input, at the first that does not.
"""

import argparse
import importlib
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.feed_check import PIECES, check_connection


def mutated(choose: random.Random) -> bytes:
    """Return a stream: pieces of good and bad lines, some of them damaged."""
    stream = bytearray(b"".join(choose.choices(PIECES, k=choose.randrange(1, 12))))
    for _ in range(choose.choice((0, 0, 1, 2, 8))):
        at = choose.randrange(len(stream) + 1)
        match choose.randrange(4):
            case 0:
                stream[at:at] = bytes(choose.randrange(256) for _ in range(choose.randrange(1, 5)))
            case 1:
                del stream[at : at + choose.randrange(1, 20)]
            case 2:
                stream[at : at + 1] = bytes([choose.randrange(256)])
            case 3:
                other = choose.randrange(len(stream) + 1)
                stream[at:at] = stream[other : other + choose.randrange(1, 60)]
    return bytes(stream)


def run_mutations(count: int, seed: int) -> None:
    """Check so many mutated streams, each cut into chunks at random."""
    choose = random.Random(seed)
    began = time.monotonic()
    half = 0
    for number in range(1, count + 1):
        stream = mutated(choose)
        cuts = [choose.randrange(len(stream) + 1) for _ in range(choose.randrange(4))]
        _check(stream, cuts, f"seed {seed}, input {number}")
        if number == count // 2:
            half = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if number % 100_000 == 0:
            print(f"{number} inputs, {time.monotonic() - began:.0f} s", flush=True)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - half
    print(f"{count} inputs, seed {seed}: no finding; {grown} KiB more memory at most than after the first half")


def run_atheris(count: int, seed: int) -> None:
    """Let atheris choose the inputs: the first byte says how the rest is cut into chunks."""
    atheris = importlib.import_module("atheris")  # not among the requirements; only this way needs it

    def one(data: bytes) -> None:
        size = data[0] if data else 1
        stream = data[1:] + b"\n"
        _check(stream, list(range(size, len(stream), size)) if size else [], repr(data))

    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as corpus:
        for number, piece in enumerate(PIECES):
            Path(corpus, str(number)).write_bytes(b"\x11" + piece + piece)
        dictionary = Path(__file__).with_name("feed.dict")
        options = [f"-runs={count}", f"-seed={seed}", f"-dict={dictionary}", "-max_len=2048", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options, corpus], one)
        atheris.Fuzz()


def _check(stream: bytes, cuts: list[int], what: str) -> None:
    try:
        check_connection(stream, cuts)
    except BaseException:
        print(f"{what}: {stream!r} cut at {cuts}", file=sys.stderr)
        raise


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description="Fuzz the feed: framing, decoding, folding.")
    parser.add_argument("count", type=int, help="number of inputs")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    run: Callable[[int, int], None] = run_atheris if arguments.atheris else run_mutations
    run(arguments.count, arguments.seed)


if __name__ == "__main__":
    main()
