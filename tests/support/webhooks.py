"""Webhooks for tests: endpoints that lead to a receiver, and the threads that deliver to them."""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from service.ports import RecordFilter
from service.webhooks import WebhookEndpoint, Webhooks
from service.webhooks.addresses import PRIVATE, Resolve, resolve
from service.webhooks.sender import WebhookSender
from telemetry.instruments import Instruments
from tests.support.both_stores import Store
from tests.support.deliveries import NO_INSTRUMENTS, wall_clock
from tests.support.webhook_receiver import SECRET, WebhookReceiver


def secret_file(folder: Path, *secrets: str) -> Path:
    """Write the secrets to a file of the right mode."""
    path = folder / "webhook.secret"
    path.touch(mode=0o600)
    path.write_text("".join(f"{secret}\n" for secret in secrets or (SECRET,)))
    return path


def endpoint_to(receiver: WebhookReceiver, folder: Path, name: str = "one", **changed: Any) -> WebhookEndpoint:
    """Return an endpoint that leads to the receiver, and gets everything from the first record on."""
    endpoint = WebhookEndpoint(
        name=name,
        scheme=receiver.url.partition(":")[0],
        host="127.0.0.1",
        port=receiver.port,
        target="/hook",
        secret_file=secret_file(folder),
        where=RecordFilter(tenant_id="default"),
        from_start=True,
        allowed=PRIVATE,
    )
    return msgspec.structs.replace(endpoint, **changed)


def sender_to(endpoint: WebhookEndpoint, resolver: Resolve = resolve) -> WebhookSender:
    """Return the connection to an endpoint, whose name is resolved by `resolver`."""
    return WebhookSender(endpoint, resolver, wall_clock, time.monotonic)


def webhooks_over(
    store: Store, endpoints: Sequence[WebhookEndpoint], instruments: Instruments = NO_INSTRUMENTS
) -> Webhooks:
    """Return the webhooks of a process of its own, which are not started."""
    return Webhooks(
        endpoints,
        store.webhooks(),
        sender_to,
        instruments,
        clock=store.clock,
        monotonic=time.monotonic,
        random=random.Random(7).random,
    )
