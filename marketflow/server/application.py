"""gunicorn's own side: its settings, its log, and the application that its workers load."""

import logging
import os
import resource
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]  # gunicorn has no types
from gunicorn.glogging import Logger  # type: ignore[import-untyped]  # gunicorn has no types

from marketflow import logs
from marketflow.server.job import Job
from marketflow.server.worker import NodeWorker

GRACE_S = 8
"""How long a worker has to finish requests and drain its node; with the other servers' stops it stays below 10 s."""


def serve(job: Job) -> None:
    """Run gunicorn until it is told to stop or cannot go on; leaves by SystemExit."""
    logs.configure(job.settings.log.level, job.settings.log.format)
    _raise_file_limit()
    _Application(job).run()


def _raise_file_limit() -> None:
    """Allow as many connections as the system lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, job: Job) -> None:
        self.job = job
        super().__init__()

    def load_config(self) -> None:
        settings: dict[str, Any] = {
            "bind": f"fd://{self.job.listener}",
            "workers": self.job.settings.server.workers,
            "worker_class": NodeWorker,
            "worker_connections": 4096,
            "logger_class": _Logger,
            "http_parser": "python",
            "control_socket_disable": True,
            "max_requests": 0,
            # Also the longest that the head of a request may take to arrive.
            "keepalive": 15,
            "timeout": 30,
            "graceful_timeout": GRACE_S,
            # No header says who a client is, not even on this machine: where one is believed, anyone can send it.
            "forwarded_allow_ips": "",
            "forwarder_headers": "",
            "secure_scheme_headers": {},
            "limit_request_line": 4094,
            "limit_request_fields": 64,
            "limit_request_field_size": 8190,
        }
        # The heartbeat of the workers is the time of a file; in memory it cannot wait for a busy disk.
        if os.access("/dev/shm", os.W_OK):  # noqa: S108 - a file without a name
            settings["worker_tmp_dir"] = "/dev/shm"  # noqa: S108 - as above
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Not used: each worker asks its node."""
        raise NotImplementedError


class _Logger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Sends what gunicorn logs through our pipeline; its notes on everyday things only when debugging."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        quiet = logging.getLogger().level > logging.DEBUG
        self.error_log.setLevel(logging.WARNING if quiet else logging.DEBUG)
        if quiet:
            self.error_log.addFilter(_tells_news)

    def reopen_files(self) -> None:
        """There are none."""

    def close_on_exec(self) -> None:
        """There are no files of its own."""


def _tells_news(record: logging.LogRecord) -> bool:
    """Leave out broken connections of clients: that is the world's way and needs no traceback."""
    return record.msg != "Socket error processing request."
