"""Identifiers: what is refused at the door, and what two of them look like to people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.identifiers import as_seen, check_identifier


@pytest.mark.parametrize(
    "text",
    [
        "anna",
        "Anna Smith",
        "anna@example.com",
        "auth0|5f7c8ec7c33c6c004bbafe82",
        "CN=Anna, O=Example",
        "system:serviceaccount:jobs:runner",
        "Jos\u00e9",
        "\u0418\u0432\u0430\u043d\u043e\u0432",
        "\u65e5\u672c\u8a9e",
        "https://id.example/",
        "x" * 256,
    ],
)
def test_what_providers_call_people_is_accepted(text: str) -> None:
    """An identifier is returned as it was given: in the case and the script that it has."""
    assert check_identifier(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "does not have 1 to 256"),
        ("x" * 257, "does not have 1 to 256"),
        ("an\nna", "nobody sees"),
        ("an\u200bna", "nobody sees"),
        ("an\u00adna", "nobody sees"),
        ("\u202eanna", "nobody sees"),
        ("anna\U000e0061", "nobody sees"),
        ("anna\ufe0f", "nobody sees"),
        ("anna\u3164", "nobody sees"),
        ("anna\u2800", "nobody sees"),
        ("anna\ue000", "nobody sees"),
        ("anna\ud800", "nobody sees"),
        ("anna\u2028", "nobody sees"),
        ("anna\u0378", "nobody sees"),
        ("Jose\u0301", "NFKC"),
        ("\uff41nna", "NFKC"),
        ("anna\u00a0", "NFKC"),
        (" anna", "a blank at an edge"),
        ("anna ", "a blank at an edge"),
        ("anna  smith", "two in a row"),
        ("\u0430nna", "mixes letters that look alike (Latin and Cyrillic)"),
        ("ann\u03b1", "mixes letters that look alike (Latin and Greek)"),
    ],
)
def test_what_people_cannot_tell_apart_is_refused(text: str, why: str) -> None:
    """The refusal says what is wrong, and names a character that nobody sees by its number."""
    with pytest.raises(ValueError, match="it ") as refused:
        check_identifier(text)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Anna", "anna"),
        ("anna", " an\u200bna "),
        ("\uff21nna", "anna"),
        ("Jose\u0301", "jos\u00c9"),
        ("Stra\u00dfe", "STRASSE"),
        ("\u03a3\u0391\u03a3", "\u03c3\u03b1\u03c2"),
        ("a  b", "A b"),
    ],
)
def test_one_name_is_one_name_in_whatever_case_and_form(one: str, other: str) -> None:
    """Case, compatibility forms, composition and what nobody sees make no difference."""
    assert as_seen(one) == as_seen(other)


def test_other_names_are_other_names() -> None:
    """A letter of another script is another letter; a name without an accent is another name."""
    assert len({as_seen(name) for name in ("anna", "\u0430nna", "ann\u00e0", "anna1", "an na")}) == 5


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_the_form_that_people_see_is_stable(text: str) -> None:
    """It is its own form."""
    assert as_seen(as_seen(text)) == as_seen(text)
