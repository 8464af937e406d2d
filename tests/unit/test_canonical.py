"""The canonical form against published bytes and against another implementation of RFC 8785."""

import json
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.audit.canonical import MAX_INTEGER, canonical_bytes, sha256_hex
from telemetry.errors import CanonicalFormError
from tests.support.depth import examples

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "canonical.json").read_text())

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = TEXTS | st.integers(-MAX_INTEGER, MAX_INTEGER) | st.booleans()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)


@pytest.mark.parametrize("at", range(len(VECTORS)))
def test_published_bodies_keep_their_bytes_and_their_hash(at: int) -> None:
    """Encoding what a published body says gives its bytes again, and its published hash."""
    body = VECTORS[at]["body"].encode()

    assert canonical_bytes(json.loads(body)) == body
    assert sha256_hex(body) == VECTORS[at]["sha256"]


@settings(derandomize=True, deadline=None, max_examples=examples(100))
@given(st.dictionaries(TEXTS, VALUES, max_size=5))
def test_every_value_of_the_format_is_encoded_as_rfc_8785_says(value: dict[str, Any]) -> None:
    """For any value of the format the bytes are those of an independent implementation of RFC 8785."""
    assert canonical_bytes(value) == rfc8785.dumps(value)


def test_keys_beyond_the_basic_plane_are_ordered_by_utf_16() -> None:
    """RFC 8785, 3.2.3: keys are ordered by UTF-16 code units, which puts U+1F600 before U+FB33."""
    assert canonical_bytes({"\ufb33": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ufb33":1}'.encode()


@pytest.mark.parametrize("value", [{"a": "b"}, OrderedDict(a="b"), MappingProxyType({"a": "b"})])
def test_any_mapping_has_a_canonical_form(value: Any) -> None:
    """What kind of mapping holds the members makes no difference to their bytes."""
    assert canonical_bytes(value) == b'{"a":"b"}'


@pytest.mark.parametrize(
    "member",
    [
        1.0,
        float("nan"),
        None,
        b"bytes",
        {"set"},
        MAX_INTEGER + 1,
        -MAX_INTEGER - 1,
        "\ud800",
        [["\udfff"]],
        {"\ud800": 1},
        {"é": "\ud800"},
        {1: "number"},
        [None],
        {"inner": 0.5},
    ],
)
def test_what_is_not_of_the_format_has_no_canonical_form(member: Any) -> None:
    """Floats, null, lone surrogates, integers beyond ±(2^53-1) and foreign types are refused, however deep they are."""
    with pytest.raises(CanonicalFormError):
        canonical_bytes({"outer": {"member": member}})
