"""What the OpenAPI document says of a route beyond its signature: stated at the route itself, in its options."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from service.api.fields import REQUEST_ID

DOCUMENTED: Final = "documented"
"""The key of a route's options under which this stands."""

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"


class Documented(Struct, frozen=True, kw_only=True):
    """What is not in the signature of a handler.

    Args:
        answer: what the answer is; None where the docstring of its type says so.
        media_types: of the answer.
        headers: of the answer, by their names in `HEADERS`.
        also: further statuses that answer with the same body, and what they mean.
        takes: the media type of a body that is bytes.
        any_role: True when every credential may ask.
        optional_credential: True when the route is open, and tells more to who comes with a credential.
    """

    answer: str | None = None
    media_types: tuple[str, ...] = (JSON,)
    headers: tuple[str, ...] = ()
    also: Mapping[int, str] = {}
    takes: str | None = None
    any_role: bool = False
    optional_credential: bool = False


def _text(description: str, **schema: Any) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string", **schema}}


# Of answers.
HEADERS: Final[Mapping[str, dict[str, Any]]] = {
    "X-Request-Id": _text("The id of the request, as records have it.", **REQUEST_ID),
    "traceresponse": _text(
        "The span of the request (W3C Trace Context, level 2).", pattern="^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
    ),
    "ETag": _text("The version of the job; of an artifact, the SHA-256 of its bytes.", pattern='^"[0-9a-f]+"$'),
    "Location": _text("Where the job that was created is; comes with 201.", format="uri-reference"),
    "Content-Disposition": _text("The name under which the bytes are saved."),
    "Repr-Digest": _text("The SHA-256 of the bytes (RFC 9530).", pattern="^sha-256=:[A-Za-z0-9+/]{43}=:$"),
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
    "WWW-Authenticate": _text("How to authenticate (RFC 6750)."),
}
UNTRACED: Final = ("X-Request-Id",)
"""What comes with each answer of health and metrics."""
EVERYWHERE: Final = (*UNTRACED, "traceresponse")
"""What comes with each answer of all other routes."""
