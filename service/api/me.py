"""The route that tells a caller who it is here."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from service.api.exchange import exchange_of
from service.api.methods import get
from service.api.requests import ApiRequest
from service.roles import ROLES
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.record import ActorType


class MeAnswer(Struct, frozen=True, kw_only=True):
    """The caller as records name it, and what its credential allows; `expires_at` is null when it has no end."""

    actor_id: str
    actor_type: ActorType
    tenant_id: str
    roles: Sequence[str]
    credential_kind: Annotated[str, Meta(extra_json_schema={"enum": ["api_key", "jwt"]})]
    expires_at: str | None


@get("/v1/me")
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
