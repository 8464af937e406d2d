"""The routes that only look, in a form that answers HEAD as well as GET, as RFC 9110 (9.1) asks of every server."""

from functools import partial
from typing import Final

from litestar import route
from litestar.enums import HttpMethod

get: Final = partial(route, http_method=[HttpMethod.GET, HttpMethod.HEAD])
"""Litestar's `get`, for HEAD too: the same headers without the body, and where a look is recorded, so is this one."""
