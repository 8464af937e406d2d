"""Opens the socket of the API, before anything is made: if the port is in use, nothing is changed."""

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from service.config import Settings
from service.errors import SettingsError

BACKLOG: Final = 2048


def listen(settings: Settings) -> socket.socket:
    """Listen on the address of the settings.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    with _explained(settings) as family:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    # Connections inherit this option. asyncio sets it only on sockets that name their protocol, which these do not.
    # Without it, the body of each answer waits 40 ms for the client's delayed acknowledgement of the head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def examine_listening(settings: Settings) -> None:
    """Raise what `listen` would raise, but do not listen, so that a service that starts now is not disturbed.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    with _explained(settings) as family, socket.socket(family) as probe:
        # Servers set this option too: with it, ended connections do not keep an address in use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind((settings.host, settings.port))


@contextmanager
def _explained(settings: Settings) -> Generator[int]:
    """Yield the family of the address, and raise errors of the system as `SettingsError`."""
    try:
        yield socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, OverflowError, UnicodeError) as error:
        # The last two are the errors for a port out of range and for a malformed host name.
        where = f"cannot listen on {settings.host}:{settings.port}"
        raise SettingsError([f"{where}: {_why(error)}; set AUDITRACE_HOST or AUDITRACE_PORT"]) from error


def _why(error: Exception) -> str:
    # The text of an error of `create_server` repeats the address.
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno is not None:
        return os.strerror(error.errno)
    return str(error)
