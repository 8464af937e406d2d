"""What texts of a request may be, on any text whatever."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.auth import bearer_token
from service.api.texts import (
    is_idempotency_key,
    is_input_name,
    is_plain,
    is_request_id,
    is_uuid,
    shown,
    version_of,
)
from service.errors import RefusedError
from service.operations.reading import filter_text
from service.ports import RecordFilter

ANY_TEXT = st.text(st.characters())


@given(ANY_TEXT)
def test_what_is_plain_can_stand_in_a_record(text: str) -> None:
    """A plain text encodes as UTF-8 and holds nothing that breaks a line or a terminal."""
    if is_plain(text):
        assert text.encode().decode() == text
        assert text.splitlines() in ([], [text])
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text)


@given(ANY_TEXT)
def test_what_is_shown_is_plain_and_short(text: str) -> None:
    """Any text from outside is shown without what could do harm, and not longer than asked for."""
    assert is_plain(shown(text, 20))
    assert len(shown(text, 20)) <= 20


@given(ANY_TEXT)
def test_an_input_name_is_a_plain_file_name(text: str) -> None:
    """A name that passes has no separator, names no folder, and starts with no dot."""
    if is_input_name(text):
        assert not set(text) & set("/\\\0:~")
        assert text not in {"", ".", ".."}
        assert not text.startswith(".")
        assert text.isascii()


@pytest.mark.parametrize("text", ["a\n", "\na", "a b", "é", "", "a" * 129])
def test_ids_match_as_a_whole(text: str) -> None:
    """A line break at the end, which some patterns overlook, makes neither a request id nor an input name."""
    assert not is_request_id(text)
    assert not is_input_name(text)


def test_ids_have_their_forms() -> None:
    """Request ids, idempotency keys and UUIDs are recognised in the one form that they have."""
    assert is_request_id("A-z_0.9")
    assert is_idempotency_key("any printable: ~!")
    assert not is_idempotency_key("\x7f")
    assert is_uuid("019b76da-a800-7000-8000-000000000000")
    assert not is_uuid("019B76DA-A800-7000-8000-000000000000")
    assert not is_uuid("019b76da-a800-7000-8000-000000000000\n")


@given(st.integers(1, 999_999_999))
def test_an_etag_comes_back_as_its_version(version: int) -> None:
    """What `ETag` gave is what `If-Match` asks for, spaces around it aside; `*` and nothing ask for none."""
    assert version_of(f'"{version}"') == version_of(f' "{version}" ') == version
    assert version_of("*") is None
    assert version_of(None) is None


@given(st.lists(st.one_of(ANY_TEXT, ANY_TEXT.map("Bearer {}".format)), max_size=2))
def test_a_token_is_taken_from_one_bearer_header_only(authorizations: list[str]) -> None:
    """Whatever the headers hold, a token comes out of a single `Bearer` header, or nobody is authenticated."""
    refusal = _refusal(lambda: bearer_token(authorizations))
    assert is_plain(refusal)
    if not refusal:
        (only,) = authorizations
        assert only.lower().startswith("bearer ")
        assert bearer_token(authorizations) in only


VALUES = st.lists(st.text(max_size=5), min_size=1, max_size=3, unique=True)


@given(st.dictionaries(st.sampled_from(["actor_id", "job_id", "trace_id"]), VALUES.map(tuple)))
def test_equal_filters_have_one_text(stated: dict[str, tuple[str, ...]]) -> None:
    """A filter's text does not depend on the order in which it was stated, and no value can pretend to be two."""
    backwards = {name: values[::-1] for name, values in reversed(stated.items())}
    assert filter_text(RecordFilter(**stated)) == filter_text(RecordFilter(**backwards))
    assert filter_text(RecordFilter(**stated)).count("=") == sum(map(len, stated.values()))


def _refusal(call: Callable[[], object]) -> str:
    """Return the sentence with which a call is refused; empty when it is not."""
    try:
        call()
    except RefusedError as error:
        return error.detail
    return ""
