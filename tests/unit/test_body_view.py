"""A body is shown as far as it can be read, because listings are most needed when a body was tampered with."""

import msgspec
import pytest

from telemetry.audit.body_view import view_body
from telemetry.audit.ocsf import ocsf_event

BODY = {"timestamp": "t", "event_name": "e", "trace_id": "1", "span_id": "2", "attributes": {"audit.action": "X"}}


@pytest.mark.parametrize("removed", ["timestamp", "event_name", "trace_id", "span_id"])
def test_a_member_that_was_removed_is_empty(removed: str) -> None:
    """The rest of the body is there; members that listings do not show are not needed at all."""
    seen = view_body(msgspec.json.encode({name: value for name, value in BODY.items() if name != removed}))
    assert getattr(seen, removed) == ""
    assert seen.attributes == BODY["attributes"]


def test_an_event_of_ocsf_needs_the_whole_body() -> None:
    """An export in another format leaves nothing out in silence."""
    with pytest.raises(msgspec.ValidationError, match="observed_timestamp"):
        ocsf_event(msgspec.json.encode(BODY).decode())
