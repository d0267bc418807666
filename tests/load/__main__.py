"""All benchmarks, and one table of what they measured: `python -m tests.load [--short] [ROW ...]`."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from tests.load import flood, growth, minute, rest, runtime, visible, workers
from tests.load.machine import Noise, Watch
from tests.load.table import Figure, limit, show, show_head, show_noise

ROWS: dict[str, Callable[[bool], Iterator[Figure]]] = {
    "flood": flood.figures,
    "visible": visible.figures,
    "rest": rest.figures,
    "symbols": growth.of_symbols,
    "feeds": growth.of_feeds,
    "minute": minute.figures,
    "workers": workers.figures,
    "runtime": runtime.figures,
}


def main() -> int:
    """Run the rows that were named, or all; 1 where a ratio is below half of its target."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--short", action="store_true", help="measure each thing for seconds")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all when none is named")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - ROWS.keys():
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is stopped
    load = ", ".join(f"{each:.2f}" for each in os.getloadavg())
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, load average before: {load}\n")
    show_head()
    measured: list[Figure] = []
    noise: list[Noise] = []
    for name in arguments.rows or ROWS:
        watch = Watch(name)
        found: list[Figure] = []
        try:
            for figure in ROWS[name](arguments.short):
                found.append(figure)
                show(figure)
        # One that cannot be measured does not keep the others from it.
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            found.append(limit(f"{name}: could not be measured", 1, 0, "", repr(error)[:300]))
            show(found[-1])
        noise.append(watch.stop())
        measured += found
    show_noise(noise)
    missed = [figure.what for figure in measured if not figure.met]
    failed = [figure.what for figure in measured if figure.fails]
    print(f"\n{len(measured) - len(missed)} of {len(measured)} met." + "".join(f"\nMissed: {what}" for what in missed))
    print("".join(f"\nBelow half of its target: {what}" for what in failed), end="")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
