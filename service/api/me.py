"""The route that shows a caller its actor, tenant and roles."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from service.api.fields import KEY_ID, ActorField, Tenant, Time, about
from service.api.problems import refusals
from service.api.request import ApiRequest
from service.api.routing import get
from service.roles import ROLES
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.record import KEY_ISSUER, ActorType


class MeAnswer(Struct, frozen=True, kw_only=True):
    """The caller as records name it, and what its credential allows; `expires_at` is null when it has no end."""

    actor_id: Annotated[
        ActorField, about("The actor as records name it: the name of the key, or the subject of the token.")
    ]
    actor_type: Annotated[ActorType, about("What kind of actor it is.", "user")]
    issuer: Annotated[
        str,
        about(
            "Who vouches for the actor: `key`, or `proxy` for a trusted proxy, else the issuer of the token.",
            KEY_ISSUER,
        ),
    ]
    credential_id: Annotated[
        str | None, about("The id of the API key, or the `jti` of the token; null when it has none.", KEY_ID)
    ]
    person: Annotated[str | None, about("Whose key or token it is, for the four-eyes rule; null when not known.", None)]
    tenant_id: Tenant
    roles: Annotated[
        Sequence[Annotated[str, Meta(extra_json_schema={"enum": list(ROLES)})]],
        about("Its roles.", ["viewer", "operator"]),
    ]
    credential_kind: Annotated[str, about("The kind of the credential.", enum=["api_key", "jwt", "proxy"])]
    expires_at: Annotated[Time | None, about("Until when the credential is valid; null when it has no end.", None)]


# Without 403: every role may ask.
@get("/v1/me", responses=refusals())
async def get_me(request: ApiRequest) -> MeAnswer:
    """Return the actor of this request's credential, and until when it is valid. Every valid credential may ask."""
    credential = request.exchange.credential
    return MeAnswer(
        actor_id=credential.actor.id,
        actor_type=credential.actor.type,
        issuer=credential.actor.issuer or KEY_ISSUER,
        credential_id=credential.credential_id,
        person=credential.person,
        tenant_id=credential.tenant_id,
        roles=[role for role in ROLES if role in credential.roles],
        credential_kind=credential.kind,
        expires_at=None if credential.expires_ns is None else rfc3339_nanos(credential.expires_ns),
    )
