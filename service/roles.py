"""The roles of a credential, and the check that an operation's role is among them."""

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
    """Require that one of `roles` is in `allowed`; `admin` is always allowed.

    Raises:
        ForbiddenError: none of the roles is allowed; the text names the allowed ones.
    """
    if ADMIN not in roles and roles.isdisjoint(allowed):
        raise ForbiddenError(f"this needs the role {' or '.join(allowed) or ADMIN}")
