"""Ports for servers that must know theirs before they listen, or must come back on the same one."""

import socket
import weakref


class ReservedPorts:
    """Distinct TCP ports of loopback that the kernel gives to nobody else for as long as this object is held.

    Each is bound by a socket that does not listen: a connection to it is refused, and neither an outgoing connection
    nor a server that asks for any port gets it. A server that asks for it by number may listen on it, because that
    socket, as every server's, allows its address to be used again.
    """

    def __init__(self, count: int) -> None:
        sockets = [socket.socket() for _ in range(count)]
        weakref.finalize(self, _close, sockets)
        for one in sockets:
            # First bound alone, then shared: the other way round two of these sockets might get one port.
            one.bind(("127.0.0.1", 0))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.numbers: tuple[int, ...] = tuple(one.getsockname()[1] for one in sockets)


def _close(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()
