"""Finds the address of an endpoint to connect to: resolved, checked, and kept for a while."""

from collections.abc import Callable
from typing import Final

from service.webhooks.addresses import Resolve, is_loopback, refusal_of
from service.webhooks.endpoints import WebhookEndpoint
from telemetry.delivery.answers import Unreachable

_KEPT_S: Final = 60.0


class Route:
    """The address that an endpoint's requests go to; for one thread.

    The connection goes to exactly the checked address, so that a name that resolves to another address a moment later
    leads nowhere else.
    """

    def __init__(self, endpoint: WebhookEndpoint, resolve: Resolve, monotonic: Callable[[], float]) -> None:
        self._endpoint = endpoint
        self._resolve = resolve
        self._monotonic = monotonic
        self._address: str | None = None
        self._until = 0.0
        self._failures = 0

    def address(self) -> str | Unreachable:
        """Return a checked address, or why there is none.

        If one address of a name is not allowed, none is used: such a name was not made for this endpoint.
        """
        if self._address is not None and self._monotonic() < self._until:
            return self._address
        endpoint = self._endpoint
        try:
            found = self._resolve(endpoint.host, endpoint.port)
        except (OSError, UnicodeError) as error:
            return Unreachable("name_resolution", f"{endpoint.host} cannot be resolved: {error}")
        for each in found:
            refusal = refusal_of(each, endpoint.allowed)
            if refusal is None and endpoint.scheme == "http" and not (endpoint.may_be_plain or is_loopback(each)):
                refusal = f"{each} is another machine, and http:// is for this one only, unless allow_http = true"
            if refusal is not None:
                return Unreachable("address_not_allowed", f"{endpoint.host} is not connected to: {refusal}")
        # The next address after each failure, because not every address of a name needs to work.
        address = self._address if self._address in found else None
        self._address = address or found[self._failures % len(found)]
        self._until = self._monotonic() + _KEPT_S
        return self._address

    def failed(self) -> None:
        """Say that the address did not answer: it is resolved anew, and another one is tried."""
        self._failures += 1
        self._address = None
