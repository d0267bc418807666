"""The wheel as its users get it: installed into an empty environment, run away from the sources, asked for a price.

python -m tests.support.installed DIST ENVIRONMENT
"""

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.support.ports import free_port
from tests.support.waiting import wait_until

HOST = "127.0.0.1"
START_TIMEOUT = 60.0  # seconds; a first start creates a PostgreSQL cluster
STOP_TIMEOUT = 20.0  # seconds


def main() -> None:
    """Check the only wheel in a directory; raises what is wrong with it."""
    dist, environment = (Path(argument).resolve() for argument in sys.argv[1:])
    (wheel,) = dist.glob("*.whl")
    venv.create(environment, clear=True, with_pip=True)
    programs = environment / "bin"
    subprocess.run([programs / "pip", "install", "--quiet", f"{wheel}[embedded]"], check=True)
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
            answer = wait_until(lambda: price(system, port), "a price is there", START_TIMEOUT)
            print(answer)
            system.send_signal(signal.SIGTERM)
            status = system.wait(STOP_TIMEOUT)
        finally:
            system.kill()
    if status != 0:
        sys.exit(f"marketflow run ended with {status}")


def price(system: subprocess.Popen[bytes], port: int) -> str | None:
    """Ask for the latest price; None when there is none yet."""
    if system.poll() is not None:
        sys.exit(f"marketflow run ended by itself with {system.returncode}")
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/prices/latest/BTCUSDT")
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == http.HTTPStatus.OK else None
    except OSError:
        return None
    finally:
        connection.close()


if __name__ == "__main__":
    main()
