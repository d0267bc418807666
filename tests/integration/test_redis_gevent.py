"""The tests of the Redis adapter once more, in a process that gevent has patched, as those of MarketFlow are."""

import subprocess
import sys
from pathlib import Path

import pytest

_RUN = """
from gevent import monkey
monkey.patch_all()
import sys
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("name", ["test_redis_prices.py", "test_redis_faults.py", "test_redis_cluster.py"])
def test_on_gevent(name: str) -> None:
    tests = Path(__file__).with_name(name)
    command = [sys.executable, "-c", _RUN, "-q", "-p", "no:cacheprovider", str(tests)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
