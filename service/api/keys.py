"""The routes of API keys, for administrators of a tenant: list, create, rotate, revoke."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from litestar import Response, delete, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter
from msgspec import UNSET, Meta, Struct, UnsetType

from service.api.bodies import CreateKey, RotateKey
from service.api.fields import KEY_ID, RECEIPT, ActorField, Tenant, Time, about
from service.api.problems import refusals
from service.api.request import ApiRequest, KeyChanges
from service.api.routing import BODY, EVENT, get
from service.errors import InvalidRequestError, TryLaterError
from service.operations.base import Committed, naming
from service.operations.keys import DEFAULT_OVERLAP_MS, IssuedKey, KeyChoice
from service.ports import ApiKey, Receipt
from service.roles import ADMIN, ROLES, VIEWER, require
from service.times import parse_end_ns
from service.units import parse_duration_ms
from telemetry import names
from telemetry.audit.chain import rfc3339_nanos

KeyIdPath = Annotated[
    str, PathParameter(description="The id of the key.", schema_extra={"pattern": "^[0-9A-Za-z]{1,64}$"})
]
_TOKEN: Final = f"atk_{KEY_ID}_qkmN5RXPPOe7pNcyUZxfStLKzCVCQNZuVMxKk2nSNmY"


class KeyAnswer(Struct, frozen=True, kw_only=True):
    """An API key. `key` is there once: in the answer that made its secret."""

    id: Annotated[str, about("The id of the key, which does not change.", KEY_ID, pattern="^[0-9A-Za-z]{1,64}$")]
    name: Annotated[ActorField, about("Its name, which is the actor id in records.", "ci-bot")]
    tenant_id: Tenant
    roles: Annotated[
        Sequence[Annotated[str, Meta(extra_json_schema={"enum": list(ROLES)})]], about("Its roles.", [VIEWER])
    ]
    person: Annotated[str | None, about("Whose key it is, for the four-eyes rule; null when not known.", None)]
    created_at: Annotated[Time, about("When it was made.")]
    expires_at: Annotated[Time | None, about("From when on it is refused; null when it has no end.", None)]
    last_used_at: Annotated[Time | None, about("When it was last used, to the minute; null when it was not.", None)]
    revoked_at: Annotated[Time | None, about("When it was revoked; null when it was not.", None)]
    rotated_at: Annotated[Time | None, about("When it got its present secret; null when that is the first.", None)]
    previous_valid_until: Annotated[
        Time | None, about("Until when the secret before the present one is accepted; null when there is none.", None)
    ]
    key: Annotated[
        str | UnsetType, about("The whole key, in the one answer that shows it: it is not stored.", _TOKEN)
    ] = UNSET
    audit: Annotated[Receipt | UnsetType, about("The receipt of the record, in answers to changes.", RECEIPT)] = UNSET


class KeysAnswer(Struct, frozen=True):
    """The API keys of the tenant, oldest first, revoked ones too; without secrets."""

    keys: Annotated[Sequence[KeyAnswer], about("The keys, oldest first.")]


@get("/v1/keys", responses=refusals(403))
async def list_keys(request: ApiRequest) -> KeysAnswer:
    """List the API keys of the tenant, without secrets."""
    credential = request.exchange.credential
    require(credential.roles, ADMIN)
    keys = await asyncio.to_thread(request.parts.reads.keys)
    uses = await asyncio.to_thread(request.parts.reads.key_uses)
    return KeysAnswer([_answer(key, uses) for key in keys if key.tenant_id == credential.tenant_id])


@post(
    "/v1/keys",
    opt={EVENT: names.EVENT_KEY_CREATE, BODY: CreateKey},
    response_description="The key that was created. It is shown only here.",
    responses={
        200: ResponseSpec(
            KeyAnswer,
            description="The same key and body came before: what was created then, without its `key`.",
            generate_examples=False,
        ),
        **refusals(403, 409, 413, 415, 429),
    },
)
async def create_key(request: ApiRequest, key_changes: KeyChanges, data: JSONBody[CreateKey]) -> Response[KeyAnswer]:
    """Create an API key of the tenant. The same Idempotency-Key and body answers 200 without the key itself."""
    tenant_id = request.exchange.credential.tenant_id
    try:
        expires_ns = None if data.expires_at is None else parse_end_ns(data.expires_at, request.parts.services.clock())
    except ValueError as error:
        raise InvalidRequestError(f"expires_at: {error}") from error
    creating = key_changes.creating(data.name, data.roles, tenant_id, expires_ns, data.person)
    done = await key_changes.carry_out_for_client(creating)
    return await _issued(request, done, 200 if done.is_replay else 201)


@post(
    "/v1/keys/{key_id:str}/rotate",
    status_code=200,
    opt={EVENT: names.EVENT_KEY_ROTATE, BODY: RotateKey},
    response_description="The key with its new secret, which is shown only here.",
    responses=refusals(403, 404, 409, 413, 415, 429),
)
async def rotate_key(request: ApiRequest, key_changes: KeyChanges, key_id: KeyIdPath) -> Response[KeyAnswer]:
    """Give a key a new secret. The secret before is accepted for the overlap; name, roles and end stay the same."""
    # Read here, because Litestar takes an empty body for a missing one.
    overlap = (await request.json()).overlap if await request.body() else None
    try:
        overlap_ms = DEFAULT_OVERLAP_MS if overlap is None else parse_duration_ms(overlap)
    except ValueError as error:
        raise InvalidRequestError(f"overlap: {error}") from error
    choice = KeyChoice(request.exchange.credential.tenant_id, key_id=key_id)
    done = await key_changes.carry_out_for_client(key_changes.rotating(choice, overlap_ms))
    return await _issued(request, done, 200)


@delete(
    "/v1/keys/{key_id:str}",
    status_code=200,
    opt={EVENT: names.EVENT_KEY_REVOKE},
    response_description="The key that is revoked.",
    responses=refusals(403, 404, 429),
)
async def revoke_key(request: ApiRequest, key_changes: KeyChanges, key_id: KeyIdPath) -> Response[KeyAnswer]:
    """Revoke a key: it is refused from the next request on. A second time changes nothing, and is recorded."""
    choice = KeyChoice(request.exchange.credential.tenant_id, key_id=key_id)
    done = await key_changes.carry_out_for_client(key_changes.revoking(choice))
    return Response(_answer(done.value, await _uses(request, done.receipt), done.receipt))


async def _issued(request: ApiRequest, done: Committed[IssuedKey], status: int) -> Response[KeyAnswer]:
    uses = await _uses(request, done.receipt)
    return Response(_answer(done.value.stored, uses, done.receipt, done.value.token), status_code=status)


async def _uses(request: ApiRequest, receipt: Receipt) -> Mapping[str, int]:
    with naming(receipt):
        try:
            return await asyncio.to_thread(request.parts.reads.key_uses)
        except TryLaterError:
            # The change is committed, and its answer may be the only one that shows the key.
            return {}


def _answer(
    key: ApiKey, uses: Mapping[str, int], receipt: Receipt | None = None, token: str | None = None
) -> KeyAnswer:
    return KeyAnswer(
        id=key.key_id,
        name=key.name,
        tenant_id=key.tenant_id,
        roles=key.roles,
        person=key.person,
        created_at=rfc3339_nanos(key.created_ns),
        expires_at=_time(key.expires_ns),
        last_used_at=_time(uses.get(key.key_id)),
        revoked_at=_time(key.revoked_ns),
        rotated_at=_time(key.rotated_ns),
        previous_valid_until=_time(key.previous_until_ns),
        key=token or UNSET,
        audit=receipt or UNSET,
    )


def _time(time_ns: int | None) -> str | None:
    return None if time_ns is None else rfc3339_nanos(time_ns)
