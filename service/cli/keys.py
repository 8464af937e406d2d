"""`auditrace keys`: API keys, and the keys that sign and verify checkpoints."""

import argparse
import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.bootstrap.clock import now_ns
from service.bootstrap.databases import database_of
from service.cli.output import print_answer, print_line, table
from service.config import examine_settings, read_settings, without_otel_variables
from service.errors import InvalidRequestError
from service.jobs.model import DEFAULT_TENANT, TenantId
from service.ports import ApiKey, RegisteredKey
from service.roles import ROLES
from service.times import parse_end_ns
from service.units import parse_duration_ms
from telemetry.audit.chain import rfc3339_nanos

if TYPE_CHECKING:
    from service.bootstrap.node import Node

_WHOLE_KEY: Final = re.compile(r"atk_[0-9A-Za-z]+_")
_HEADINGS: Final = ("ID", "NAME", "TENANT", "ROLES", "PERSON", "CREATED", "LAST USE", "ROTATED", "EXPIRES", "")


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the command's actions and their options."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    creating = actions.add_parser("create", help="create an API key and print it, once")
    creating.add_argument("--role", action="append", required=True, choices=ROLES, dest="roles", help="may be repeated")
    creating.add_argument(
        "--expires", metavar="TIME", help="the key is refused from this time on: 90d, 2027-01-31, 2027-01-31T12:00:00Z"
    )
    creating.add_argument(
        "--person", metavar="WHO", help="whose key it is, as tokens name the person: alice@example.com; for four eyes"
    )
    creating.set_defaults(command=_create)
    revoking = actions.add_parser("revoke", help="refuse an API key from the next request on")
    revoking.set_defaults(command=_revoke)
    for action in (creating, revoking):
        action.add_argument(
            "name", metavar="NAME", help="name of the key and actor id; its tenant can never use it for another key"
        )
        action.add_argument("--tenant", default=DEFAULT_TENANT, help="default: %(default)s")
    listing = actions.add_parser("list", help="list API keys, without their secrets")
    listing.set_defaults(command=_list)
    public = actions.add_parser("public", help="print the PEM public key that verifies this ledger")
    public.add_argument("--all", action="store_true", help="print all keys that ever signed, oldest first")
    public.set_defaults(command=_public)
    rotating = actions.add_parser(
        "rotate", help="give the API key NAME a new secret; without NAME, sign checkpoints with another key from now on"
    )
    rotating.add_argument("name", metavar="NAME", nargs="?", help="name of an API key")
    rotating.add_argument("--tenant", help=f"of the API key; default: {DEFAULT_TENANT}")
    rotating.add_argument(
        "--overlap", metavar="DURATION", help="how long the secret before is accepted: 0s to 7d; default: 1h"
    )
    rotating.add_argument(
        "--new-key",
        type=Path,
        metavar="PATH",
        help="of the key that signs: PKCS#8 PEM file of mode 0600; default: a new key is made",
    )
    rotating.set_defaults(command=_rotate)
    for action in (creating, listing, public, rotating):
        action.add_argument("--json", action="store_true", help="print JSON")


# Each action imports what it needs, because loading telemetry takes as long as a whole `list`.
def _open_ledger(arguments: argparse.Namespace) -> "AbstractContextManager[Node]":
    with without_otel_variables():
        from service.bootstrap.node import open_ledger
        from service.cli.invocation import invocation_at
    settings = examine_settings()
    return open_ledger(settings, invocation_at(arguments, settings))


def _create(arguments: argparse.Namespace) -> int:
    _require_no_secret(arguments.name)
    expires_ns = _end_of(arguments.expires)
    with _open_ledger(arguments) as node, node.key_operations() as operations:
        created = operations.create(
            arguments.name, arguments.roles, TenantId(arguments.tenant), expires_ns, arguments.person
        ).value
    document = {
        "id": created.id,
        "key": created.key,
        "roles": created.stored.roles,
        "tenant": created.stored.tenant_id,
        "expires_at": _time(expires_ns),
        "person": arguments.person,
    }
    shown_once = f"This is the only time that the key of {created.stored.name!r} is shown."
    print_answer(arguments, document, [created.key, "", shown_once])
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    _require_no_secret(arguments.name)
    with _open_ledger(arguments) as node, node.key_operations() as operations:
        operations.revoke(arguments.name, TenantId(arguments.tenant))
    print_line(f"revoked {arguments.name}")
    return 0


def _require_no_secret(name: str) -> None:
    """Raise if a whole key was given for its name, because names are recorded."""
    if _WHOLE_KEY.match(name):
        raise InvalidRequestError("NAME is a whole key with its secret: give the name of the key (auditrace keys list)")


def _end_of(text: str | None) -> int | None:
    try:
        return None if text is None else parse_end_ns(text, now_ns())
    except ValueError as error:
        raise InvalidRequestError(f"--expires: {error}") from error


def _time(time_ns: int | None) -> str | None:
    return None if time_ns is None else rfc3339_nanos(time_ns)


def _list(arguments: argparse.Namespace) -> int:
    with closing(database_of(read_settings().database, as_it_lies=True).reads()) as reads:
        keys, uses = reads.keys(), reads.key_uses()
    document = [
        {
            "id": key.key_id,
            "name": key.name,
            "tenant": key.tenant_id,
            "roles": key.roles,
            "created_at": _time(key.created_ns),
            "last_used_at": _time(uses.get(key.key_id)),
            "expires_at": _time(key.expires_ns),
            "rotated_at": _time(key.rotated_ns),
            "previous_valid_until": _time(key.previous_until_ns),
            "revoked_at": _time(key.revoked_ns),
            "revoked": key.revoked_ns is not None,
            "person": key.person,
        }
        for key in keys
    ]
    print_answer(arguments, document, table(_HEADINGS, [_row(key, uses.get(key.key_id), now_ns()) for key in keys]))
    return 0


def _row(key: ApiKey, used_ns: int | None, at_ns: int) -> Sequence[str]:
    end = "revoked" if key.revoked_ns is not None else ""
    if not end and key.expires_ns is not None and key.expires_ns <= at_ns:
        end = "expired"
    moments = tuple(map(_moment, (key.created_ns, used_ns, key.rotated_ns, key.expires_ns)))
    return (key.key_id, key.name, key.tenant_id, " ".join(key.roles), key.person or "-", *moments, end)


def _moment(time_ns: int | None) -> str:
    """Return a time to the second, or `never`."""
    return "never" if time_ns is None else f"{rfc3339_nanos(time_ns)[:19]}Z"


def _public(arguments: argparse.Namespace) -> int:
    from service.keyfiles import SigningKeys, deployment_secret

    settings = read_settings()
    database = database_of(settings.database, as_it_lies=True)
    keys: list[RegisteredKey] = []
    if not database.is_empty():
        keys += database.keys(deployment_secret(settings.ledger_secret, may_create=False))
    if not keys:
        if not os.path.lexists(settings.signing_key):
            database.require()
        # Before the first start: the key that the first start will register.
        signer = SigningKeys(settings.signing_key, settings.signing_key_passphrase).open(may_create=False)
        keys = [RegisteredKey(signer.fingerprint, signer.public_pem, 1)]
    shown = keys if arguments.all else keys[-1:]
    print_answer(arguments, [_described(key) for key in shown], ["".join(key.public_pem for key in shown).rstrip()])
    return 0


def _rotate(arguments: argparse.Namespace) -> int:
    if arguments.name is not None:
        return _rotate_api_key(arguments)
    if arguments.tenant is not None or arguments.overlap is not None:
        raise InvalidRequestError("--tenant and --overlap are about an API key: give its NAME")
    with _open_ledger(arguments) as node:
        first = node.keys.rotate(
            lambda: node.checkpoints.registered()[-1].fingerprint, arguments.new_key, node.checkpoints.rotate
        )
        signing = node.checkpoints.registered()[-1]
    lines = [
        f"checkpoints from {first} on are signed with {signing.fingerprint}, which is now {node.keys.path}",
        "",
        "Copy that file to every other node, and give those who verify the public key: auditrace keys public",
    ]
    print_answer(arguments, _described(signing), lines)
    return 0


def _rotate_api_key(arguments: argparse.Namespace) -> int:
    from service.operations.keys import DEFAULT_OVERLAP_MS

    _require_no_secret(arguments.name)
    if arguments.new_key is not None:
        raise InvalidRequestError("--new-key is about the key that signs checkpoints: leave NAME out")
    try:
        overlap_ms = DEFAULT_OVERLAP_MS if arguments.overlap is None else parse_duration_ms(arguments.overlap)
    except ValueError as error:
        raise InvalidRequestError(f"--overlap: {error}") from error
    with _open_ledger(arguments) as node, node.key_operations() as operations:
        tenant = TenantId(arguments.tenant or DEFAULT_TENANT)
        rotated = operations.rotate(arguments.name, tenant, overlap_ms).value
    until = _time(rotated.stored.previous_until_ns)
    document = {"id": rotated.id, "key": rotated.key, "previous_valid_until": until}
    told = f"The secret before is accepted until {until}. This is the only time that the new key is shown."
    print_answer(arguments, document, [rotated.key, "", told])
    return 0


def _described(key: RegisteredKey) -> dict[str, object]:
    return {"fingerprint": key.fingerprint, "first_checkpoint": key.first_checkpoint, "public_key": key.public_pem}
