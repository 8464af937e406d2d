"""Reads JSON bodies strictly, where Litestar would turn `"false"` into false and leave broken UTF-8 to a 500."""

from functools import cache
from typing import Any, Final

import msgspec
from litestar import Request

from service.errors import InvalidRequestError

BODY: Final = "body"
"""The key of a route's options under which the type of its JSON body stands."""


class ApiRequest(Request[Any, Any, Any]):
    """A request whose JSON is decoded straight into the type of the route: unknown members and wrong types fail."""

    async def json(self) -> Any:
        """Return the decoded body.

        Raises:
            InvalidRequestError: it is not JSON, not of this type, or holds texts that no record can hold.
        """
        body = await self.body()
        try:
            return _decoder(self.route_handler.opt[BODY]).decode(body)
        except UnicodeDecodeError as error:
            raise InvalidRequestError("the body is not valid UTF-8") from error
        except RecursionError as error:
            raise InvalidRequestError("the body is nested too deeply") from error
        except msgspec.DecodeError as error:
            raise InvalidRequestError(f"the body does not fit: {error}") from error


@cache
def _decoder(body_type: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(body_type)
