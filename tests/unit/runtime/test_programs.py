"""The runtime in programs of its own: the example of the docs, patched and unpatched, and with real threads about."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "docs" / "examples" / "supervised_actor.py"

IMPORTS = """
import sys
import actors.runtime
assert not any(name.split(".")[0] in {"marketflow", "falcon", "redis", "psycopg2"} for name in sys.modules)
assert not sys.modules["gevent"].monkey.is_anything_patched() if "gevent.monkey" in sys.modules else True
"""

SURVIVES = """
import gevent
from actors.runtime import *

class Hard(GeventActor):
    def on_receive(self, message):
        raise message

class Soft(GeventActor):
    def on_receive(self, message):
        return message

system = ActorSystem(SupervisorSpec("root", children=[ChildSpec("hard", Hard), ChildSpec("soft", Soft)]))
system.start(timeout=5)
for error in (SystemExit(7), gevent.GreenletExit(), gevent.Timeout(1), BaseException("x")):
    system.address("root/hard").tell(error)
    assert system.address("root/soft").ask("there", timeout=5) == "there"
system.stop(timeout=5)
print("done")
"""

INTERRUPTED = """
import os, signal
import gevent.event
from actors.runtime import *

class Busy(GeventActor):
    def on_receive(self, message):
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
system = ActorSystem(SupervisorSpec("root", children=[ChildSpec("busy", Busy)]))
system.start(timeout=5)
system.address("root/busy").tell("interrupt")
try:
    gevent.event.Event().wait(30)
except KeyboardInterrupt:
    print("interrupted")
system.stop(timeout=5)
"""

PATCH = "from gevent import monkey; monkey.patch_all()\n"


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_of_the_docs_has_thirty_lines_and_runs() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 30
    assert run(str(EXAMPLE)) == "1103 0 1\n()\n"


@pytest.mark.parametrize("patch", ["", PATCH])
def test_it_runs_patched_and_unpatched(patch: str) -> None:
    assert run("-c", patch + EXAMPLE.read_text()).endswith("()\n")


@pytest.mark.parametrize("patch", ["", PATCH])
def test_no_exception_of_one_actor_ends_the_program_or_another_actor(patch: str) -> None:
    assert run("-c", patch + SURVIVES) == "done\n"


def test_an_interrupt_that_hits_an_actor_reaches_the_program() -> None:
    assert run("-c", INTERRUPTED) == "interrupted\n"


def test_it_imports_nothing_of_markets_and_patches_nothing() -> None:
    run("-c", IMPORTS)
