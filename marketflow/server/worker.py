"""The gunicorn worker: hosts one node, is fair to all connections, and ends each of them cleanly."""

import gc
import os
import sys
from contextlib import suppress
from functools import partial
from pkgutil import resolve_name
from socket import SHUT_RD, SHUT_WR
from typing import Any

import gevent
import msgspec
from gevent import monkey
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gevent.socket import socket
from gunicorn.http import errors  # type: ignore[import-untyped]  # gunicorn has no types
from gunicorn.workers.ggevent import GeventWorker  # type: ignore[import-untyped]  # gunicorn has no types

from marketflow.errors import MarketFlowError
from marketflow.server.job import FAILED, READY, report

_HEARTBEAT_S = 1.0
_LAST_REQUESTS_S = 2.0
"""How long requests may go on once the worker is told to stop."""
_LINGER_S = 1.0
_TAKE_S = 30.0
"""How long a client may take for an answer: one that reads nothing would otherwise hold its connection for ever."""

_PROBLEMS = {
    errors.LimitRequestLine: (414, "URI Too Long"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    errors.UnsupportedTransferCoding: (501, "Not Implemented"),
    errors.ExpectationFailed: (417, "Expectation Failed"),
    errors.ForbiddenProxyRequest: (403, "Forbidden"),
}


class NodeWorker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's gevent worker with a node in it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._job = self.app.job
        self._told = Event()
        self._clients: set[socket] = set()

    # -------------------------------------------------------------------------------------------- its life

    def load_wsgi(self) -> None:
        """Build and start the node. When that fails, tell the parent and wait for it to stop us: left at once, gunicorn
        would start the next one."""
        self._heart = gevent.spawn(self._beat)
        try:
            self._node = resolve_name(self._job.build)(self._job.settings, self._job.endpoints)
            self._node.on_give_up(self._give_up)
            self._node.start()
            # What is there now stays: it need not be looked through again. Windows and series are large and acyclic.
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000, 20, 50)
        except Exception as error:
            if not isinstance(error, MarketFlowError):
                self.log.exception("the node cannot start")
            report(self._job.reports, FAILED, str(error) or repr(error))
            self._wait()
            self._heart.kill()
            sys.exit()
        self.wsgi = self._node.app

    def run(self) -> None:
        """Serve until told to stop, then finish what is under way."""
        pool = Pool(self.worker_connections)
        servers = [StreamServer(listener, partial(self.handle, listener), spawn=pool) for listener in self.sockets]
        try:
            for server in servers:
                if self.cfg.workers > 1:
                    server.max_accept = 1
                server.start()
            report(self._job.reports, READY)
            self._wait()
            for server in servers:
                server.close()
            for client in list(self._clients):
                with suppress(OSError):
                    _end_input(client)
            pool.join(_LAST_REQUESTS_S)
        finally:
            self._node.stop()
            self._heart.kill()

    def _wait(self) -> None:
        """Wait until told to stop."""
        while self.alive:
            # With a timeout, as a signal alone does not wake the loop for certain.
            self._told.wait(_HEARTBEAT_S)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Take SIGTERM."""
        super().handle_exit(sig, frame)
        self._told.set()

    def _give_up(self) -> None:
        report(self._job.reports, FAILED, "an actor failed again and again, and the node gave up; the log says why")

    def _beat(self) -> None:
        while True:
            self.notify()
            gevent.sleep(_HEARTBEAT_S)

    # -------------------------------------------------------------------------------------------- its connections

    def handle(self, listener: Any, client: socket, addr: Any) -> None:
        """Serve a connection."""
        self._clients.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self._clients.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: socket, addr: Any) -> Any:
        """Answer a request, then let the others have their turn. A client whose next request is there already is
        otherwise served on and on: reading it does not wait, and nobody else comes up."""
        sock.settimeout(_TAKE_S)
        answered = super().handle_request(listener_name, req, sock, addr)
        gevent.sleep(0)
        return answered

    def handle_error(self, _req: Any, client: socket, addr: Any, exc: BaseException) -> None:
        """Answer what is no request, or what the application could not answer, with a problem of RFC 9457."""
        if isinstance(exc, errors.ParseException) and not isinstance(
            exc, errors.InvalidResponseHeader | errors.InvalidResponseHeaderName
        ):
            status, title = _PROBLEMS.get(type(exc), (400, "Bad Request"))
            detail = f"this is not a request that can be read: {exc}"
            self.log.debug("bad request from %s: %s", addr, exc)
        else:
            status, title, detail = 500, "Internal Server Error", "the server failed; its log says why"
            self.log.error("request failed", exc_info=exc)
        body = msgspec.json.encode({"type": "about:blank", "title": title, "status": status, "detail": detail[:300]})
        head = (
            f"HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        with suppress(OSError, gevent.Timeout), gevent.Timeout(_LINGER_S):
            client.sendall(head.encode("latin-1") + body)
            # Closed at once, what it still sends would reset the connection and take our answer with it.
            client.shutdown(SHUT_WR)
            while client.recv(65536):
                pass


def _end_input(client: socket) -> None:
    """Let a connection read its end: what has arrived is still answered, and who waits for a next request stops
    waiting. gevent's own shutdown would fail the waiting greenlet instead."""
    with monkey.get_original("socket", "socket")(fileno=os.dup(client.fileno())) as native:
        native.shutdown(SHUT_RD)
