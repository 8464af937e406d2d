"""Four eyes: which two actors are one person."""

import pytest

from service.errors import ForbiddenError
from service.jobs.people import Participant, is_one_person, require_known_people

ISSUER = "https://id.example"
ANNA = "anna@example.com"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("anna", "key", None), ("anna", "key", None)),
        (("anna", "key", None), ("Anna", "key", None)),
        (("anna", None, None), ("anna", "key", None)),
        (("anna", None, None), ("anna", ISSUER, None)),
        (("anna", "key", None), ("anna", "key", ANNA)),
        (("anna", "key", "a"), ("anna", "key", "b")),
        (("ci", "key", ANNA), ("4711", ISSUER, ANNA)),
        (("ci", "key", ANNA), ("4711", ISSUER, "Anna@Example.com")),
        (("ci", "key", ANNA), ("ci-2", "key", ANNA)),
    ],
)
def test_one_actor_or_one_person_is_one(
    one: tuple[str, str | None, str | None], other: tuple[str, str | None, str | None]
) -> None:
    """Equal ids of one issuer, or of one that an older version did not store, and equal people; case does not count."""
    assert is_one_person(Participant(*one), Participant(*other))
    assert is_one_person(Participant(*other), Participant(*one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("anna", "key", None), ("ben", "key", None)),
        (("anna", "key", None), ("anna", ISSUER, None)),
        (("anna", "key", ANNA), ("anna", ISSUER, None)),
        (("anna", "key", ANNA), ("ben", ISSUER, "ben@example.com")),
        (("anna", None, None), ("ben", None, None)),
    ],
)
def test_two_issuers_are_two_actors(
    one: tuple[str, str | None, str | None], other: tuple[str, str | None, str | None]
) -> None:
    """An equal id of another issuer is another actor, unless both are known as one person."""
    assert not is_one_person(Participant(*one), Participant(*other))


def test_people_that_must_be_known_are_asked_for_by_name() -> None:
    """The refusal names each actor whose person is not known, and what would make it known."""
    known, unknown = Participant("anna", "key", ANNA), Participant("4711", ISSUER, None)
    require_known_people(known, known)
    for creator, decider in ((known, unknown), (unknown, known)):
        with pytest.raises(ForbiddenError) as refused:
            require_known_people(creator, decider)
        assert "the person of 4711 is not known" in refused.value.detail
        assert "--person" in refused.value.detail
        assert "AUDITRACE_JWT_PERSON_CLAIM" in refused.value.detail
