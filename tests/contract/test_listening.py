"""The socket of the API: bound before anything starts, and quick to answer."""

import socket

import msgspec
import pytest

from service.bootstrap.listening import listen
from service.config import read_settings
from service.errors import SettingsError


def test_an_answer_is_not_held_back_until_the_client_acknowledges_its_head() -> None:
    """Each connection sends at once what it is given: head and body of an answer are two writes."""
    with listen(read_settings({"AUDITRACE_PORT": "0"})) as listener:
        with socket.create_connection(listener.getsockname()):
            connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_use_is_said_with_the_setting_that_changes_it() -> None:
    """Nothing is shared with the process that has the port, and the message names the variable to set."""
    with listen(read_settings({"AUDITRACE_PORT": "0"})) as listener:
        taken = str(listener.getsockname()[1])
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{taken}.*AUDITRACE_PORT"):
            listen(read_settings({"AUDITRACE_PORT": taken}))


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 99_999), ("a..b", 0)])
def test_an_address_that_cannot_be_one_is_a_wrong_setting(host: str, port: int) -> None:
    """The options of the command line come unchecked; what the system makes of them is told, and never a traceback."""
    settings = msgspec.structs.replace(read_settings({}), host=host, port=port)
    with pytest.raises(SettingsError, match=f"cannot listen on {host}:{port}.*AUDITRACE_HOST"):
        listen(settings)
