"""Puts the configuration of a process on record before it applies, and offers the record to the sink before.

The order, at a start: the ledger is open, nothing else works yet; what differs is committed; the records go to the sink
that was in force until then, as far as it takes them in time; then the process begins to work. A process that dies in
between leaves an offer that is pending, and the next start makes it.
"""

import logging
import os
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Final

from service.bootstrap.checked import found_right
from service.bootstrap.configuration import ConfiguredPart, Stated, stated
from service.bootstrap.examined import RECORDED_RELAY
from service.bootstrap.ledger_records import SYSTEM
from service.bootstrap.node import VERSION, Node
from service.bootstrap.sink_before import open_sink_before
from service.bootstrap.webhooks import load_webhooks
from service.config import Settings
from service.errors import SettingsError
from service.jobs.model import DEFAULT_TENANT
from service.jobs.templates import Templates
from service.keyfiles import deployment_secret
from service.operations.base import Committed
from service.operations.configuring import Configured, Configuring
from service.ports import Outbox, PendingOffer
from service.records import AuditContext
from service.relay import StallTimeout, offer, offer_backlog
from service.roles import ADMIN
from service.secrets import DeploymentSecret
from service.webhooks import WebhookEndpoint
from telemetry import names
from telemetry.audit.record import Actor
from telemetry.errors import TelemetrySettingsError

_log = logging.getLogger(__name__)

LONGEST_S: Final = 20.0
"""The most that a start waits for the sink before, however long the grace is."""
_POLL_S: Final = 0.05

Wait = Callable[[float], bool]
"""Waits for so many seconds, or until a stop is asked for; True when it is."""


def differences(settings: int, templates: int) -> str:
    """Return in words how many settings and templates differ.

    Example:
        >>> differences(0, 1), differences(2, 1)
        ('1 template differs', '2 settings and 1 template differ')
    """
    counts = {"setting": settings, "template": templates}
    parts = [f"{count} {noun}{'s' * (count > 1)}" for noun, count in counts.items() if count]
    return f"{' and '.join(parts) or 'nothing'} {'differs' if settings + templates < 2 else 'differ'}"


def host_name() -> str:
    """Return the name of this host, by the kernel."""
    return os.uname().nodename


def configure(node: Node, parts: frozenset[ConfiguredPart], endpoints: Sequence[WebhookEndpoint], wait: Wait) -> None:
    """Put the configuration of a process on record, before it begins to work; `endpoints` are those of its webhooks.

    Raises:
        TryLaterError: it cannot be recorded now, so it must not apply.
    """
    timeout = _timeout(node.settings, wait)
    done = _record(node, _stated(node, parts, endpoints, node.services.templates.now), SYSTEM)
    with closing(node.opened.outbox()) as outbox:
        _offer_pending(outbox, node.settings, node.secret, timeout)
    if done is not None and done.value.waits:
        _wait_until_delivered(node, done, timeout)


def reconfigure(
    node: Node,
    parts: frozenset[ConfiguredPart],
    endpoints: Sequence[WebhookEndpoint],
    templates: Templates,
    actor: Actor,
    wait: Wait,
) -> bool:
    """Put other templates on record, and then in force; True if they differ from those that were in force.

    They apply once the record is delivered, or could not be delivered in time.

    Args:
        node: the running process.
        parts: what it has.
        endpoints: of its webhooks, which stay as they are.
        templates: the new ones.
        actor: who asked for it.
        wait: ends when a stop is asked for.

    Raises:
        TryLaterError: it cannot be recorded now; nothing changed.
    """
    done = _record(node, _stated(node, parts, endpoints, templates), actor)
    if done is not None:
        _wait_until_delivered(node, done, _timeout(node.settings, wait))
    is_new = templates != node.services.templates.now
    node.services.templates.replace(templates)
    return is_new


def configure_relay(settings: Settings, wait: Wait) -> Sequence[WebhookEndpoint]:
    """Put the configuration of a relay on record, before it begins to deliver.

    The ledger is opened only if there is something to record.

    Returns:
        The endpoints of the webhooks that are on record; the relay may deliver to no others.

    Raises:
        SettingsError: settings are wrong, or the keys are missing.
        TryLaterError: it cannot be recorded now, so it must not apply.
    """
    database, _ = found_right(settings, RECORDED_RELAY)
    database.require()
    secret = deployment_secret(settings.ledger_secret, may_create=False)
    timeout = _timeout(settings, wait)
    endpoints = load_webhooks(settings.webhooks)
    now = stated(settings, frozenset({ConfiguredPart.RELAY}), secret.mask, version=VERSION, endpoints=endpoints)
    known = database.configuration("relay", host_name())
    if known is None or not known.is_authentic(secret) or known.document != now.configuration.document:
        with closing(Node(settings, "relay", is_daemon=False)) as node:
            _record(node, now, SYSTEM)
    outbox, give_up_name = database.outbox(f"node-{uuid.uuid4()}", time.time_ns)
    try:
        _offer_pending(outbox, settings, secret, timeout)
    finally:
        outbox.close()
        give_up_name()
    return endpoints


def _stated(
    node: Node, parts: frozenset[ConfiguredPart], endpoints: Sequence[WebhookEndpoint], templates: Templates
) -> Stated:
    return stated(
        node.settings,
        parts,
        node.secret.mask,
        version=VERSION,
        fingerprint=node.signer.fingerprint,
        # A worker executes plans, which clients made by the templates of the API.
        templates=templates if ConfiguredPart.API in parts else None,
        endpoints=endpoints,
    )


def _record(node: Node, now: Stated, actor: Actor) -> Committed[Configured] | None:
    context = AuditContext(actor=actor, tenant_id=DEFAULT_TENANT, source=node.source, roles=frozenset({ADMIN}))
    span = node.tracing.root(names.EVENT_SERVICE_CONFIGURE)
    try:
        done = Configuring(node.services, context, span).configure(host_name(), now.configuration, now.texts)
    finally:
        span.end()
    if done is not None:
        _log.info(
            "record %s states the configuration that this process applies: %s",
            done.receipts[-1].record_id,
            differences(len(done.value.settings), len(done.value.templates)),
        )
    return done


def _offer_pending(outbox: Outbox, settings: Settings, secret: DeploymentSecret, timeout: StallTimeout) -> None:
    for pending in outbox.pending_offers():
        answer = _offer(outbox, pending, settings, secret, timeout)
        if answer is not None and timeout.is_stopped:
            # The next start makes the offer.
            return
        outbox.end_offer(pending.number, answer)
        if answer is not None:
            _log.warning(
                "the sink before did not get the records of a changed configuration: %s; the present one gets them",
                answer,
            )


def _offer(
    outbox: Outbox, pending: PendingOffer, settings: Settings, secret: DeploymentSecret, timeout: StallTimeout
) -> str | None:
    """Return why the sink before did not get the records, None if it did."""
    if not pending.known.is_authentic(secret):
        return "what is stored of it was not stored by a process of this deployment"
    before = pending.known.configuration.sink
    try:
        sink = open_sink_before(before, settings, secret.mask, max(timeout.left_s(), 0.0))
    except (SettingsError, TelemetrySettingsError) as error:
        return str(error)
    with closing(sink):
        answer = offer(outbox, sink, pending.stream_id, pending.record_number, timeout)
        if answer is None and pending.changed.sink != before:
            # What is not delivered yet was committed while that sink was in force.
            answer = offer_backlog(outbox, sink, timeout)
    return None if answer is None else f"{sink.address}: {answer}"


def _wait_until_delivered(node: Node, done: Committed[Configured], timeout: StallTimeout) -> None:
    record_id = done.receipts[-1].record_id
    while (record := node.reads.record(record_id, None)) is not None and record.delivery == "committed":
        if not timeout.pause(_POLL_S):
            _log.warning("record %s of a changed configuration applies, and is not delivered yet", record_id)
            return


def _timeout(settings: Settings, wait: Wait) -> StallTimeout:
    return StallTimeout(min(settings.shutdown_grace_ms / 1000, LONGEST_S), time.monotonic, wait)
