"""The disk of the embedded servers is full: health says so, memory keeps everything, and all is stored once there is
room."""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.fault_load import Load, Probe, check_law
from tests.support.fault_system import INTERVAL, FaultSystem, exchanges, fault_system
from tests.support.oracle import Oracle
from tests.support.waiting import let_pass, wait_until

SIZE_MB = 200
MB = 1024 * 1024


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[bool]:
    """Put a small file system at a directory; False where the machine does not let us."""
    path.mkdir(mode=0o711)
    options = f"size={SIZE_MB}m,mode=711"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, check=False)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "--lazy", path], check=True)


@contextlib.contextmanager
def full(system: FaultSystem, *, mounted: bool) -> Iterator[None]:
    """Leave no room on the disk; where it is not ours, let no file of the servers grow."""
    if not mounted:
        for process in system.own_processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() in {"valkey-server", "postgres"}:
                    process.rlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        yield
        for process in system.own_processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return
    ballast = system.data_dir / "ballast"
    free = shutil.disk_usage(system.data_dir).free
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - 64 * 1024)
    yield
    ballast.unlink()


def test_full_disk() -> None:
    oracle = Oracle()
    with exchanges(oracle) as feeds, fault_system(feeds) as system, small_disk(system.data_dir) as mounted:
        try:
            system.start_ready()
            for feed in feeds:
                feed.wait_connected()
            with Load(feeds) as load:
                let_pass(2)
                with Probe(system) as probe:
                    with full(system, mounted=mounted):
                        wait_until(lambda: system.body("/health")["status"] == "degraded", "health says so", 30)
                        let_pass(8)
                        assert system.get("/prices/latest/BTCUSDT").status == 200
                    wait_until(lambda: _well(system), "both servers are used again", 60)
                    let_pass(1)
            probe.check("full disk")
            assert max(load.slowest.values()) < 2, "ingest stalled"
            assert "No space left" in system.log or "File too large" in system.log or not mounted
            check_law(system, oracle, INTERVAL, 60)
        except BaseException:
            print(system.log_shown)
            raise
        finally:
            system.kill()


def _well(system: FaultSystem) -> bool:
    components = system.body("/health")["components"]
    return all(components[name]["status"] == "ok" for name in ("redis", "postgres"))


@pytest.fixture(autouse=True)
def no_core_files() -> Iterator[None]:
    """A server that panics for lack of room would leave one."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)
