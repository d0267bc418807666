"""The ratios of the actor runtime's own benchmark, from its own program."""

import re
import subprocess
import sys
from collections.abc import Iterator

from tests.load.table import Figure, ratio

_LINE = re.compile(r"(tell|ask|proxy call) +(\w+ / \w+) +([\d.]+) +\(at least ([\d.]+)\)")
_WHAT = {"threads": "Pykka's threads", "bare": "a bare greenlet runtime", "alone": "an actor without supervisor"}


def figures(_short: bool) -> Iterator[Figure]:
    """Run it in a process of its own, as it must not be patched."""
    command = [sys.executable, "-m", "tests.load.bench_runtime"]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True).stdout
    found = [match for line in output.splitlines() if (match := _LINE.match(line))]
    assert found, output
    for match in found:
        kind, ratio_of, value, target = match.groups()
        yield ratio(f"actors: {kind}, supervised / {_WHAT[ratio_of.split()[-1]]}", float(value), float(target))
