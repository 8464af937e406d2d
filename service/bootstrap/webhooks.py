"""Webhooks, in a process that has a ledger open or in a relay's: reads their file, and opens what they need."""

import random
import time
from collections.abc import Sequence
from pathlib import Path

from service.bootstrap.database import Database
from service.bootstrap.declared import read_declared
from service.webhooks import WebhookEndpoint, Webhooks, endpoints_of
from service.webhooks.addresses import resolve
from service.webhooks.sender import WebhookSender
from telemetry.errors import TelemetrySettingsError
from telemetry.instruments import Instruments


def load_webhooks(path: Path | None) -> Sequence[WebhookEndpoint]:
    """Return the endpoints that the file declares; none without a file. Their secrets and certificates are read too.

    Raises:
        SettingsError: lists every problem of the file and of the files that it names, each with its place.
    """
    if path is None:
        return []
    folder = path.absolute().parent
    return read_declared(path, lambda content: endpoints_of(content, folder, _problems_of), "AUDITRACE_WEBHOOKS")


def webhooks_of(
    endpoints: Sequence[WebhookEndpoint], database: Database, owner: str, instruments: Instruments
) -> Webhooks | None:
    """Return the webhooks of these endpoints; None when there are none.

    Args:
        endpoints: those that are on record.
        database: the ledger.
        owner: a name for the leases, which no other process ever has.
        instruments: of the process.

    Raises:
        SettingsError: the schema of the database is older than webhooks.
    """
    if not endpoints:
        return None
    draw = random.SystemRandom().random
    outbox = database.webhooks(owner, time.time_ns)
    return Webhooks(endpoints, outbox, _open, instruments, time.time_ns, time.monotonic, draw)


def _open(endpoint: WebhookEndpoint) -> WebhookSender:
    return WebhookSender(endpoint, resolve, time.time_ns, time.monotonic)


def _problems_of(endpoint: WebhookEndpoint) -> Sequence[str]:
    try:
        _open(endpoint).close()
    except TelemetrySettingsError as error:
        return error.problems
    return ()
