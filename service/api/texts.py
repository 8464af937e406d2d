"""Checks of the texts of a request, for more than one part of the API."""

import re
from typing import Final
from urllib.parse import unquote

from service.errors import InvalidRequestError
from service.units import parse_duration_ms

MAX_INTEGER: Final = 2**53 - 1
"""The largest integer that a record body can hold (I-JSON)."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_INPUT_NAME: Final = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9._-]{1,128}")
_IDEMPOTENCY_KEY: Final = re.compile(r"[ -~]{1,255}")
_VERSION_TAG: Final = re.compile(r'"([1-9][0-9]{0,8})"')
# C0 and C1 controls, DEL, lone surrogates, and the line separators that forge lines in what shows the text.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTROL_BUT_BREAKS: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_ENCODED_SLASH: Final = re.compile("%2[Ff]")


def is_plain(text: str, *, line_breaks: bool = False) -> bool:
    """True when `text` holds no control character and no lone surrogate; tabs and line breaks only when allowed."""
    return (_CONTROL_BUT_BREAKS if line_breaks else _CONTROL).search(text) is None


def shown(text: str, limit: int = 1024) -> str:
    """Return a text of a request in a form that a record can hold: controls replaced, cut to `limit`."""
    return _CONTROL.sub("\ufffd", text[:limit])


def is_request_id(text: str) -> bool:
    """True for 1 to 128 of `[A-Za-z0-9._-]`."""
    return _REQUEST_ID.fullmatch(text) is not None


def is_uuid(text: str) -> bool:
    """True for a UUID in its canonical form, the form of all ids of jobs and records."""
    return _UUID.fullmatch(text) is not None


def is_input_name(text: str) -> bool:
    """True for 1 to 128 of `[A-Za-z0-9._-]` without a leading dot and without `..`."""
    return _INPUT_NAME.fullmatch(text) is not None


def is_idempotency_key(text: str) -> bool:
    """True for 1 to 255 printable ASCII characters."""
    return _IDEMPOTENCY_KEY.fullmatch(text) is not None


def routed_path(path: str) -> str:
    """Return the path, percent-encoded as it was sent, in the form in which routes are looked up.

    An encoded slash, or one that follows another, separates nothing: it stays in its segment, and matches no route.

    Example:
        >>> routed_path("/v1/%6aobs"), routed_path("/v1%2Fjobs"), routed_path("//v1/jobs")
        ('/v1/jobs', '/v1%2fjobs', '/%2fv1/jobs')
    """
    return unquote(_ENCODED_SLASH.sub("%252f", path)).replace("//", "/%2f")


def version_of(if_match: str | None) -> int | None:
    """Return the version that an `If-Match` header asks for; None when any will do.

    Raises:
        InvalidRequestError: it is neither `*` nor one strong tag as `ETag` gave it (RFC 9110, 13.1.1).
    """
    if if_match is None or if_match.strip() == "*":
        return None
    tag = _VERSION_TAG.fullmatch(if_match.strip())
    if tag is None:
        raise InvalidRequestError('If-Match must be * or one ETag of the job, for example "3"')
    return int(tag.group(1))


def wait_ms_of(text: str, max_ms: int) -> int:
    """Return a duration of the query parameter `wait` in milliseconds.

    Raises:
        InvalidRequestError: it is no duration, or a longer one than `max_ms`.
    """
    try:
        wait_ms = parse_duration_ms(text)
    except ValueError as error:
        raise InvalidRequestError(f"query parameter wait: {error}") from error
    if wait_ms > max_ms:
        raise InvalidRequestError(f"query parameter wait: at most {max_ms // 1000}s")
    return wait_ms
