"""Opens the sink that was in force before a change, from what the ledger knows of it and the present settings.

The ledger knows no credentials. Present ones are sent only to a sink that had them already: headers if their keyed hash
is that of the sink before, a token if host and port are the same, a client certificate if it has the same path.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from service.bootstrap.configuration import Mask, address_of, masked_headers, sink_of
from service.config import Settings
from service.errors import SettingsError
from service.ports import SettingValue
from telemetry.delivery import open_sink
from telemetry.delivery.answers import Sink
from telemetry.delivery.archive import ArchiveSink
from telemetry.delivery.settings import SinkSettings, sink_settings

_STEPS: Final = 3
"""A request may take three timeouts."""


def open_sink_before(before: Mapping[str, SettingValue], settings: Settings, mask: Mask, grace_s: float) -> Sink:
    """Return the sink of a stored configuration; it answers within `grace_s` seconds.

    Args:
        before: the settings `sink.…` of the configuration.
        settings: the present ones.
        mask: hashes secrets.
        grace_s: how long a request may take.

    Raises:
        SettingsError, TelemetrySettingsError: it cannot be opened here.
    """
    archive = before.get("sink.archive")
    if archive is not None:
        path = Path(str(archive))
        if not path.parent.is_dir():
            # Not made again: it was moved, or it is on another host.
            raise SettingsError([f"the folder {path.parent} is not there"])
        return ArchiveSink(path, time.time_ns, settings.archive_max_bytes)
    now = sink_of(settings)
    endpoint = str(before["sink.endpoint"])
    sink = sink_settings(settings.environment, endpoint)
    if sink is None:
        raise AssertionError("an endpoint was given")
    return open_sink(_with_own_credentials(sink, before, now, mask, grace_s), time.time_ns)


def _with_own_credentials(
    sink: SinkSettings, before: Mapping[str, SettingValue], now: SinkSettings | None, mask: Mask, grace_s: float
) -> SinkSettings:
    has_same_headers = masked_headers(sink.headers, mask) == before.get("sink.headers")
    is_same_host = now is not None and _host_of(now) == _host_of(sink)
    has_same_certificate = str(sink.client_certificate and sink.client_certificate.resolve()) == before.get(
        "sink.client_certificate"
    )
    # A query, which may hold a secret, is not in the ledger.
    is_same = now is not None and address_of(now).partition("?")[0] == address_of(sink)
    return msgspec.structs.replace(
        sink,
        endpoint=now.endpoint if now is not None and is_same else sink.endpoint,
        headers=sink.headers if has_same_headers else {},
        token_file=now.token_file if now is not None and is_same_host else None,
        client_certificate=sink.client_certificate if has_same_certificate else None,
        client_key=sink.client_key if has_same_certificate else None,
        timeout_s=min(sink.timeout_s, max(grace_s / _STEPS, 0.1)),
    )


def _host_of(sink: SinkSettings) -> tuple[str | None, int | None, bool]:
    parts = urlsplit(address_of(sink))
    return parts.hostname, parts.port, sink.is_secure
