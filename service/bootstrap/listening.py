"""The socket of the API: bound before anything is made, so that a port in use changes nothing."""

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from service.config import Settings
from service.errors import SettingsError

BACKLOG: Final = 2048


def listen(settings: Settings) -> socket.socket:
    """Listen where the settings say.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    with _explained(settings) as family:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    # Connections inherit it. asyncio sets it only on sockets that name their protocol, which these do not; without it
    # the body of an answer waits for the client's delayed acknowledgement of the head, 40 ms each time.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def examine_listening(settings: Settings) -> None:
    """Raise what `listen` would raise; nothing listens, so that a service that starts now is not disturbed.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    with _explained(settings) as family, socket.socket(family) as probe:
        # As servers set it: an address is not in use because of connections that have ended.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind((settings.host, settings.port))


@contextmanager
def _explained(settings: Settings) -> Generator[int]:
    """Yield the family of the address, and turn errors of the system into one of the settings."""
    try:
        yield socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, OverflowError, UnicodeError) as error:
        # The last two are what a port out of range and a host that is no name give.
        where = f"cannot listen on {settings.host}:{settings.port}"
        raise SettingsError([f"{where}: {_why(error)}; set AUDITRACE_HOST or AUDITRACE_PORT"]) from error


def _why(error: Exception) -> str:
    # What `create_server` raises says the address once more.
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno is not None:
        return os.strerror(error.errno)
    return str(error)
