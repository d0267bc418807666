"""The embedded servers together: started side by side, stopped side by side, under one data directory."""

import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import structlog

from marketflow.adapters.embedded.directory import DataDirectory
from marketflow.adapters.embedded.postgres import dsn, postgres
from marketflow.adapters.embedded.valkey import valkey
from marketflow.errors import StartupError
from marketflow.service import Service

_log = structlog.get_logger(component="embedded")

_START_TIMEOUT_S = 60.0
"""Long enough to load a large append-only file and to replay a large log after a crash."""
_STOP_TIMEOUT_S = 5.0


class Endpoints(NamedTuple):
    """Where Redis and PostgreSQL are. Both may hold a password."""

    redis_url: str
    postgres_dsn: str

    def __repr__(self) -> str:
        return "Endpoints(...)"


def running_postgres(data_dir: Path) -> str:
    """Return the DSN of the PostgreSQL that another process runs on `data_dir`. Raises StartupError."""
    return dsn(DataDirectory(data_dir.absolute()).sockets())


class EmbeddedServers:
    """Valkey and PostgreSQL with their data in `data_dir`, owned by this process: they are started again when they die,
    and the kernel stops them should this process be killed. Leave one out where a server of its kind is given."""

    def __init__(self, data_dir: Path, *, redis: bool = True, postgres: bool = True) -> None:
        self._directory = DataDirectory(data_dir.absolute())
        self._redis = redis
        self._postgres = postgres
        self.services: dict[str, Service] = {}

    def start(self) -> Endpoints:
        """Start them, wait until they serve and return where; "" for one left out. Raises StartupError."""
        began = time.monotonic()
        self._directory.acquire()
        try:
            endpoints = self._start()
            for service in self.services.values():
                service.wait_ready(_START_TIMEOUT_S)
        except OSError as error:
            self.stop()
            raise StartupError(f"the embedded servers did not start: {error}") from None
        except BaseException:
            self.stop()
            raise
        seconds = round(time.monotonic() - began, 2)
        _log.info("embedded servers are ready", data_dir=str(self._directory.path), seconds=seconds)
        return endpoints

    def _start(self) -> Endpoints:
        redis_url = postgres_dsn = ""
        specs = {}
        if self._redis:
            specs["redis"], redis_url = valkey(self._directory.path / "valkey", self._directory.sockets())
        if self._postgres:
            specs["postgres"], postgres_dsn = postgres(self._directory.path / "postgres", self._directory.sockets())
        for name, spec in specs.items():
            self.services[name] = Service(spec)
        for service in self.services.values():
            service.start()
        return Endpoints(redis_url, postgres_dsn)

    def stop(self, timeout: float = _STOP_TIMEOUT_S) -> None:
        """Stop them, within `timeout` seconds and a moment, and give the data directory back. Harmless again."""
        deadline = time.monotonic() + timeout
        for service in self.services.values():
            service.ask_to_stop()
        for service in self.services.values():
            service.stop(max(0.5, deadline - time.monotonic()))
        self.services.clear()
        self._directory.release()

    def __enter__(self) -> Endpoints:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __str__(self) -> str:
        return f"embedded servers in {self._directory.path}"
