"""Small proxies that remember which hosts they were asked for: HTTP (CONNECT and forwarding) and SOCKS5."""

import base64
import select
import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_END_OF_HEAD = b"\r\n\r\n"
_SOCKS = b"\x05"


class Proxy:
    """Listens on loopback and speaks HTTP and SOCKS5, whichever a client begins with.

    Args:
        credentials: what `user:password` a client must give; None to take everybody.
        resolve: the address behind each name that a client may ask for.
    """

    def __init__(self, credentials: str | None = None, resolve: dict[str, str] | None = None) -> None:
        self.asked: list[str] = []
        """What clients asked for, in order: `connect host:port`, `forward host:port` or `socks host:port`."""
        self._credentials = credentials
        self._resolve = resolve or {}

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, ValueError, IndexError), client:
            first = client.recv(65536)
            if first.startswith(_SOCKS):
                self._socks(client, first)
            else:
                self._http(client, first)

    def _http(self, client: socket.socket, head: bytes) -> None:
        while _END_OF_HEAD not in head:
            head += client.recv(65536)
        lines = head.partition(_END_OF_HEAD)[0].decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if self._credentials is not None:
            expected = "Basic " + base64.b64encode(self._credentials.encode()).decode()
            if headers.get("proxy-authorization") != expected:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
        if method == "CONNECT":
            self.asked.append(f"connect {target}")
            with self._connect(target) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _splice(client, server)
            return
        host = target.partition("://")[2].partition("/")[0]
        self.asked.append(f"forward {host}")
        with self._connect(host) as server:
            # An origin server takes the absolute form too, but ours routes by the path alone.
            server.sendall(head.replace(f"http://{host}".encode(), b"", 1))
            _splice(client, server)

    def _socks(self, client: socket.socket, greeting: bytes) -> None:
        methods = greeting[2 : 2 + greeting[1]]
        wanted = 0 if self._credentials is None else 2
        if wanted not in methods:
            client.sendall(b"\x05\xff")
            return
        client.sendall(bytes([5, wanted]))
        if self._credentials is not None:
            given = client.recv(65536)
            user = given[2 : 2 + given[1]].decode()
            password = given[3 + given[1] :].decode()
            is_right = f"{user}:{password}" == self._credentials
            client.sendall(bytes([1, 0 if is_right else 1]))
            if not is_right:
                return
        request = client.recv(65536)
        if request[3] == 3:
            host = request[5 : 5 + request[4]].decode()
        else:
            host = socket.inet_ntop(socket.AF_INET if request[3] == 1 else socket.AF_INET6, request[4:-2])
        (port,) = struct.unpack(">H", request[-2:])
        self.asked.append(f"socks {host}:{port}")
        with self._connect(f"{host}:{port}") as server:
            client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            _splice(client, server)

    def _connect(self, target: str) -> socket.socket:
        host, _, port = target.rpartition(":")
        server = socket.create_connection((self._resolve.get(host, host.strip("[]")), int(port)))
        self._open.append(server)
        return server


def _splice(one: socket.socket, other: socket.socket) -> None:
    while True:
        for readable in select.select([one, other], [], [])[0]:
            part = readable.recv(65536)
            if not part:
                return
            (other if readable is one else one).sendall(part)
