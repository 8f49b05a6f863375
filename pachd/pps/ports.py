"""Ports of services: what connects to the external port on loopback reaches the internal one."""

from __future__ import annotations

import socket
import socketserver
import threading

from pachd.errors import PachError

_PIECE = 64 << 10  # bytes
_CONNECT = 5.0  # seconds


class Forwarder:
    """Listens on 127.0.0.1:``external`` and hands every connection on to 127.0.0.1:``internal``.

    Raises PachError when the external port is taken.
    """

    def __init__(self, external: int, internal: int) -> None:
        try:
            self._server = _Server(external, internal)
        except (OSError, OverflowError) as error:
            raise PachError(
                f"cannot listen on the service's external port {external} on 127.0.0.1: "
                f"{getattr(error, 'strerror', None) or error}; choose another external_port"
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name=f"port-{external}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and cut all connections."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
        self._server.cut()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, external: int, internal: int) -> None:
        self.internal = internal
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", external), _Connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that broke is no news."""

    def hold(self, *sockets: socket.socket) -> None:
        """Remember connections, to cut them at the end."""
        with self._lock:
            self._open.update(sockets)

    def release(self, *sockets: socket.socket) -> None:
        """Close connections that are over."""
        with self._lock:
            self._open.difference_update(sockets)
        for one in sockets:
            one.close()

    def cut(self) -> None:
        """End all connections."""
        with self._lock:
            for one in self._open:
                _shut(one, socket.SHUT_RDWR)


class _Connection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        try:
            inner = socket.create_connection(("127.0.0.1", server.internal), _CONNECT)
        except (OSError, OverflowError):
            return  # the code does not listen yet, or there is no such port
        inner.settimeout(None)
        server.hold(self.request, inner)
        try:
            back = threading.Thread(target=_copy, args=(inner, self.request), daemon=True)
            back.start()
            _copy(self.request, inner)
            back.join()
        finally:
            server.release(inner, self.request)


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Hand on bytes until the source's end, and tell the target that it was the end."""
    try:
        while data := source.recv(_PIECE):
            target.sendall(data)
    except OSError:
        _shut(source, socket.SHUT_RDWR)
        _shut(target, socket.SHUT_RDWR)
        return
    _shut(target, socket.SHUT_WR)


def _shut(one: socket.socket, how: int) -> None:
    try:
        one.shutdown(how)
    except OSError:
        pass


def forward(external: int, internal: int) -> Forwarder | None:
    """A forwarder, or None where the code itself listens on the port that others use."""
    return Forwarder(external, internal) if external and internal and external != internal else None
