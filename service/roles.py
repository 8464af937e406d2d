"""Who may do what: the roles of a credential and the permission that each operation asks for."""

from typing import Final

from service.errors import ForbiddenError

VIEWER: Final = "viewer"
EMITTER: Final = "emitter"
OPERATOR: Final = "operator"
APPROVER: Final = "approver"
AUDITOR: Final = "auditor"
ADMIN: Final = "admin"

ROLES: Final = (VIEWER, EMITTER, OPERATOR, APPROVER, AUDITOR, ADMIN)
JOB_READERS: Final = (VIEWER, OPERATOR, APPROVER)


def require(roles: frozenset[str], *allowed: str) -> None:
    """Let pass when one of `roles` is allowed; `admin` always is.

    Raises:
        ForbiddenError: none of the roles is allowed; the text names those that are.
    """
    if ADMIN not in roles and roles.isdisjoint(allowed):
        raise ForbiddenError(f"this needs the role {' or '.join(allowed) or ADMIN}")
