"""Reads the members of a body that is known to be one, without a check of their values."""

from typing import Any, Final

import msgspec


class BodyView(msgspec.Struct, frozen=True, kw_only=True):
    """Members of a body (docs/audit-format.md, section 1); one that tampering removed is empty here."""

    timestamp: str = ""
    event_name: str = ""
    trace_id: str = ""
    span_id: str = ""
    attributes: dict[str, Any]


_DECODER: Final = msgspec.json.Decoder(BodyView)


def view_body(body: str | bytes) -> BodyView:
    """Return the members of a body that listings show.

    Raises:
        msgspec.DecodeError: the text is not the body of a record.
    """
    return _DECODER.decode(body)
