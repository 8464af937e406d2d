"""The roles of a credential, and the check that an operation's role is among them."""

from typing import Final

from service.errors import ForbiddenError

VIEWER: Final = "viewer"
EMITTER: Final = "emitter"
OPERATOR: Final = "operator"
APPROVER: Final = "approver"
AUDITOR: Final = "auditor"
ARTIFACT_READER: Final = "artifact_reader"
ADMIN: Final = "admin"

ROLES: Final = (VIEWER, EMITTER, OPERATOR, APPROVER, AUDITOR, ARTIFACT_READER, ADMIN)
JOB_READERS: Final = (VIEWER, OPERATOR, APPROVER, AUDITOR)
"""Those who may read jobs, plans, runs and the names, sizes and hashes of artifacts."""
ARTIFACT_READERS: Final = (VIEWER, OPERATOR, APPROVER, ARTIFACT_READER)
"""Those who may read what runs wrote: the bytes of artifacts, and the end of standard error."""


def has_one(roles: frozenset[str], *allowed: str) -> bool:
    """True when one of `roles` is in `allowed`; `admin` is always allowed."""
    return ADMIN in roles or not roles.isdisjoint(allowed)


def require(roles: frozenset[str], *allowed: str) -> None:
    """Require `has_one`.

    Raises:
        ForbiddenError: none of the roles is allowed; the text names the allowed ones.
    """
    if not has_one(roles, *allowed):
        raise ForbiddenError(f"this needs the role {' or '.join(allowed) or ADMIN}")
