"""The route that tells a caller who it is here."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from service.api.documented import DOCUMENTED, Documented
from service.api.fields import Actor, Tenant, Time
from service.api.methods import get
from service.api.request import ApiRequest, exchange_of
from service.roles import ROLES
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.record import ActorType


class MeAnswer(Struct, frozen=True, kw_only=True):
    """The caller as records name it, and what its credential allows; `expires_at` is null when it has no end."""

    actor_id: Annotated[
        Actor, Meta(description="The actor as records name it: the name of the key, or the subject of the token.")
    ]
    actor_type: Annotated[ActorType, Meta(description="What kind of actor it is.")]
    tenant_id: Tenant
    roles: Annotated[
        Sequence[Annotated[str, Meta(extra_json_schema={"enum": list(ROLES)})]], Meta(description="What it may do.")
    ]
    credential_kind: Annotated[
        str, Meta(description="What it came with.", extra_json_schema={"enum": ["api_key", "jwt"]})
    ]
    expires_at: Annotated[Time | None, Meta(description="Until when the credential holds; null when it has no end.")]


@get("/v1/me", opt={DOCUMENTED: Documented(any_role=True)})
async def get_me(request: ApiRequest) -> MeAnswer:
    """Return who the credential of this request stands for, and until when. Any credential that holds may ask."""
    credential = exchange_of(request.scope).credential
    return MeAnswer(
        actor_id=credential.actor.id,
        actor_type=credential.actor.type,
        tenant_id=credential.tenant_id,
        roles=[role for role in ROLES if role in credential.roles],
        credential_kind=credential.kind,
        expires_at=None if credential.expires_ns is None else rfc3339_nanos(credential.expires_ns),
    )
