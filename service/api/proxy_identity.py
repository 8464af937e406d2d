"""The credential that a trusted proxy states in headers, for a proxy that has authenticated the client itself."""

from collections.abc import Mapping

from litestar.datastructures import Headers

from service.api.auth import Credential, is_reserved
from service.api.proxy_settings import ProxySettings
from service.errors import UnauthenticatedError
from service.identifiers import check_identifier
from service.jobs.model import DEFAULT_TENANT, TenantId
from service.roles import ROLES
from telemetry.audit.record import PROXY_ISSUER, Actor


def proxy_credential(connected: str | None, headers: Headers, proxies: ProxySettings) -> Credential | None:
    """Return the credential that a proxy states; None if the request has none of its headers.

    The actor is a `user` of the issuer `proxy`. Roles that the service does not know give no permission.

    Args:
        connected: the address of the connection. No header says it.
        headers: of the request.
        proxies: the trusted proxies, and the names of their headers.

    Raises:
        UnauthenticatedError: another address sends such a header; there are two credentials, or two identities; or a
            header does not have the form of an identity, or of a tenant.
    """
    given = {name: headers.getall(name) for name in proxies.headers if name in headers}
    if not given:
        return None
    if not proxies.trusts(connected):
        raise UnauthenticatedError(f"only a trusted proxy may send {', '.join(given)}")
    if "authorization" in headers:
        raise UnauthenticatedError("there are two credentials: Authorization, and the identity that a proxy states")
    for name, values in given.items():
        if len(values) > 1:
            raise UnauthenticatedError(f"the header {name} is given twice")
    stated = {name: values[0] for name, values in given.items()}
    actor_id = _identifier(proxies.identity_header, stated)
    if is_reserved(actor_id):
        raise UnauthenticatedError(f"the header {proxies.identity_header} cannot name an actor of the service itself")
    roles = stated.get(proxies.roles_header or "", "").replace(",", " ").split()
    tenant = DEFAULT_TENANT if proxies.tenant_header is None else TenantId(_identifier(proxies.tenant_header, stated))
    return Credential(
        Actor(actor_id, "user", PROXY_ISSUER), tenant, frozenset(role for role in ROLES if role in roles), "proxy"
    )


def _identifier(name: str | None, stated: Mapping[str, str]) -> str:
    text = stated.get(name or "")
    if text is None:
        raise UnauthenticatedError(f"the proxy does not send {name}")
    # A comma could join what a client sent with what the proxy added.
    if "," in text or not text.isascii():
        raise UnauthenticatedError(f"the header {name} has a comma, or a character that is not ASCII")
    try:
        return check_identifier(text)
    except ValueError as error:
        raise UnauthenticatedError(f"the header {name} cannot be used: {error}") from error
