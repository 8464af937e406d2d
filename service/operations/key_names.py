"""The names of API keys, which are the ids of their actors: what they may be, and that no two look alike."""

import re
from collections.abc import Sequence
from typing import Final

from service.errors import ConflictError, InvalidRequestError
from service.identifiers import as_seen, check_identifier
from service.jobs.model import TenantId
from service.ports import ApiKey
from service.roles import ROLES
from telemetry.audit.record import Target

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# The actor ids of requests without a credential, and of the service itself.
RESERVED_ACTORS: Final = frozenset({"anonymous", "auditrace"})
# Those of people who give commands begin so; no name of a key can.
COMMAND_ACTORS: Final = "os:"
_WORKERS: Final = "node-"


def key_target(name: str) -> Target:
    """Return the target of a record about the key of this name, or what was given for one."""
    # A command line can hold bytes that are not text; a record cannot.
    return Target("key", name.encode(errors="replace").decode())


def checked_roles(name: str, roles: Sequence[str], tenant_id: str, person: str | None) -> tuple[str, ...]:
    """Return the roles in their order, if a key can have them and these names.

    Raises:
        InvalidRequestError: it cannot.
    """
    is_reserved = as_seen(name) in RESERVED_ACTORS or as_seen(name).startswith(_WORKERS)
    if NAME.fullmatch(name) is None or is_reserved:
        raise InvalidRequestError(
            "a key's name is 1 to 64 of A-Z a-z 0-9 . _ @ -, neither anonymous nor auditrace, and does not begin with "
            "node- as those of workers do"
        )
    if TENANT.fullmatch(tenant_id) is None:
        raise InvalidRequestError("a tenant is 1 to 64 of A-Z a-z 0-9 . _ -")
    try:
        check_identifier("-" if person is None else person)
    except ValueError as error:
        raise InvalidRequestError(f"the person of a key cannot have this name: {error}") from error
    unknown = sorted(set(roles) - set(ROLES))
    if unknown or not roles:
        given = ", ".join(map(ascii, unknown)) or "none"
        raise InvalidRequestError(f"roles are {', '.join(ROLES)}; given: {given}")
    return tuple(role for role in ROLES if role in roles)


def require_unlike(keys: Sequence[ApiKey], name: str, tenant_id: TenantId) -> None:
    """Require a name that looks like no other one of the tenant, and a tenant that looks like no other one.

    What looked alike before this was checked continues to work.

    Raises:
        ConflictError: it looks like another one.
    """
    alike = [key for key in keys if as_seen(key.tenant_id) == as_seen(tenant_id)]
    tenants = {key.tenant_id for key in alike}
    if tenants and tenant_id not in tenants:
        raise ConflictError(f"the tenant {tenant_id} looks like the tenant {min(tenants)}: use that, or another name")
    taken = [key.name for key in alike if key.tenant_id == tenant_id and as_seen(key.name) == as_seen(name)]
    if taken:
        which = f"the name {name!r}" if name in taken else f"the name {name!r}, which looks like {taken[0]!r},"
        raise ConflictError(f"{which} is taken in this tenant: names of keys are never given again")
