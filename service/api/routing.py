"""How routes are declared: the decorator of routes that only read, and the keys of what stands in their options."""

from functools import partial
from typing import Final

from litestar import route
from litestar.enums import HttpMethod

BODY: Final = "body"
"""The type of the JSON body."""
EVENT: Final = "event"
"""The name of the event; routes without one leave no records."""
JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
MEDIA_TYPES: Final = "media_types"
"""The media types of the answer, where the handler chooses one of several; for the OpenAPI document."""
STREAM: Final = "stream"
"""The media type of an answer without an end, which a parameter asks for; for the OpenAPI document."""

get: Final = partial(route, http_method=[HttpMethod.GET, HttpMethod.HEAD])
"""Litestar's `get`, which answers HEAD too, as RFC 9110 (9.1) requires: the same headers without the body.

Where a GET is recorded, a HEAD is too.
"""
