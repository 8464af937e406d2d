"""A proxy between client and server of PostgreSQL, which loses or holds messages as a test says."""

import socket
import threading
from collections.abc import Callable  # noqa: TC003 - of attributes
from pathlib import Path

COMMIT = b"COMMIT\0"


class PostgresProxy:
    """Forwards every connection to a server's socket.

    Before a message of a client is forwarded that contains `watched`, `before` is called, and `after` once the server
    has answered it and its answer is not forwarded yet. Either may block, which holds the connection, or return False,
    which ends it. While `thawed` is not set, clients do not notice that the server ended their session.
    """

    def __init__(self, folder: Path, upstream: Path, watched: bytes = COMMIT) -> None:
        """Listen in `folder`, where a client finds the socket by the same port number."""
        self.folder = folder
        self.watched = watched
        self.before: Callable[[], bool] = lambda: True
        self.after: Callable[[], bool] = lambda: True
        self.thawed = threading.Event()
        self.thawed.set()
        self._upstream = str(upstream / ".s.PGSQL.5432")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections."""
        self.thawed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def url(self, url: str) -> str:
        """Return the URL of a database by way of this proxy."""
        before, _, after = url.partition("host=")
        return f"{before}host={self.folder}&{after.partition('&')[2]}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._upstream)
            watch = threading.Event()
            for target in (self._to_server, self._to_client):
                threading.Thread(target=target, args=(client, server, watch), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket, watch: threading.Event) -> None:
        while message := _receive(client):
            if self.watched in message:
                if not self.before():
                    break
                watch.set()
            if not _send(server, message):
                break
        _end(client, server)

    def _to_client(self, client: socket.socket, server: socket.socket, watch: threading.Event) -> None:
        while message := _receive(server):
            if watch.is_set():
                watch.clear()
                if not self.after():
                    break
            if not _send(client, message):
                break
        self.thawed.wait()
        _end(client, server)


def _receive(end: socket.socket) -> bytes:
    try:
        return end.recv(65536)
    except OSError:
        return b""


def _send(end: socket.socket, message: bytes) -> bool:
    try:
        end.sendall(message)
    except OSError:
        return False
    return True


def _end(*ends: socket.socket) -> None:
    for end in ends:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue
