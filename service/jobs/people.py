"""Four eyes: whether two actors may be one person; pure."""

import msgspec

from service.errors import ForbiddenError
from service.identifiers import as_seen


class Participant(msgspec.Struct, frozen=True):
    """The creator of a job, or the one who decides about it.

    `issuer` is None where an older version stored the job. `person` is whose key or token it was, None if not known.
    """

    id: str
    issuer: str | None
    person: str | None


def is_one_person(one: Participant, other: Participant) -> bool:
    """Return whether both are one actor, or actors of one known person.

    Ids and persons are compared as people see them. An actor whose issuer is not known is every actor with its id.
    """
    is_same_issuer = one.issuer is None or other.issuer is None or one.issuer == other.issuer
    if is_same_issuer and as_seen(one.id) == as_seen(other.id):
        return True
    return one.person is not None and other.person is not None and as_seen(one.person) == as_seen(other.person)


def require_known_people(creator: Participant, decider: Participant) -> None:
    """Require that the person of both is known, so that nobody decides about his own job with another credential.

    Raises:
        ForbiddenError: one is not known; the text says whose, and what to do.
    """
    unknown = [one.id for one in (creator, decider) if one.person is None]
    if unknown:
        raise ForbiddenError(
            f"this template requires another person than the creator, and the person of {' and of '.join(unknown)} is "
            "not known: a key states its person if it was made with --person, a token in the claim that "
            "AUDITRACE_JWT_PERSON_CLAIM names"
        )
