"""The wheel as its users get it: installed into an empty environment, run away from the sources, asked for a price.

python -m tests.support.installed DIST ENVIRONMENT
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path

from tests.support.ports import free_port

HOST = "127.0.0.1"
PAUSE = 0.1  # seconds between two questions
START_TIMEOUT = 60.0  # seconds; a first start creates a PostgreSQL cluster
STOP_TIMEOUT = 20.0  # seconds


def main() -> None:
    """Check the only wheel in a directory; raises what is wrong with it."""
    dist, environment = (Path(argument).resolve() for argument in sys.argv[1:])
    (wheel,) = dist.glob("*.whl")
    venv.create(environment, clear=True, with_pip=True)
    programs = environment / "bin"
    subprocess.run([programs / "python", "-I", "-m", "pip", "install", "--quiet", f"{wheel}[embedded]"], check=True)
    with tempfile.TemporaryDirectory(prefix="mf") as name:
        away = Path(name)
        subprocess.run([programs / "marketflow", "--version"], cwd=away, check=True)
        subprocess.run([programs / "testgen", "--help"], cwd=away, check=True, stdout=subprocess.DEVNULL)
        run(programs / "marketflow", away)


def run(program: Path, away: Path) -> None:
    """Run the whole system in an empty directory until it has a price, and stop it."""
    port = free_port()
    settings = {"MARKETFLOW_SERVER__PORT": str(port), "MARKETFLOW_STORAGE__DATA_DIR": str(away / "data")}
    env = {name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")} | settings
    with subprocess.Popen([program, "run"], cwd=away, env=env) as system:
        try:
            print(first_price(system, port))
            system.send_signal(signal.SIGTERM)
            status = system.wait(STOP_TIMEOUT)
        finally:
            system.kill()
    if status != 0:
        sys.exit(f"marketflow run ended with {status}")


def first_price(system: subprocess.Popen[bytes], port: int) -> str:
    """Return the first answer with a latest price."""
    url = f"http://{HOST}:{port}/prices/latest/BTCUSDT"
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
        with contextlib.suppress(subprocess.TimeoutExpired):
            sys.exit(f"marketflow run ended by itself with {system.wait(PAUSE)}")
    sys.exit(f"no price within {START_TIMEOUT:g} s")


if __name__ == "__main__":
    main()
