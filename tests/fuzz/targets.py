"""What must hold for any bytes: each target is a function that raises when it does not."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import jwt
import msgspec
import rfc8785

from service.api.auth import Credential
from service.errors import UnauthenticatedError
from telemetry.audit.canonical import canonical_bytes
from telemetry.audit.verify import verify
from telemetry.audit.verify.read.archive import records_of_line
from telemetry.audit.verify.read.found import SourcePlace
from telemetry.audit.verify.record.intake import Intake
from telemetry.errors import CanonicalFormError
from telemetry.propagation import remote_span_context, traceparent
from tests.support.tokens import TokenIssuer

_NOW_NS: Final = 1_800_000_000 * 10**9
_PLACE: Final = SourcePlace("fuzzed", 1)
# One input never needs it.
_SPILLED: Final = Path("/nonexistent")


def otlp_json(given: bytes) -> None:
    """A line of an archive gives records or torn ones, the two paths of intake agree, and it never counts as intact."""
    found = list(records_of_line(given, _PLACE))
    for one in found:
        fast, explained = Intake([], _SPILLED, ""), Intake([], _SPILLED, "")
        is_taken = fast.take_fast(one)
        explained.take_apart(one)
        assert not is_taken or fast.gathered() == explained.gathered()
    assert verify(found).verdict in {"intact", "broken", "not_checked"}


def canonical_form(given: bytes) -> None:
    """A canonical form is that of RFC 8785, reads as the same value, and is its own canonical form."""
    try:
        value = json.loads(given)
    except (ValueError, RecursionError):
        return
    if not isinstance(value, dict):
        return
    try:
        text = canonical_bytes(value)
    except CanonicalFormError:
        return
    assert text == rfc8785.dumps(value)
    assert json.loads(text) == value
    assert canonical_bytes(msgspec.json.decode(text)) == text


def trace_context(given: bytes) -> None:
    """A `traceparent` is ignored, or continued with the ids that it states; what is passed on is valid again."""
    stated, _, state = given.decode("latin-1").partition("\n")
    context = remote_span_context(stated, state)
    if context is None:
        return
    assert context.is_valid
    trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
    assert stated[2:].startswith(f"-{trace_id}-{span_id}-")
    again = remote_span_context(traceparent(trace_id, span_id, context.trace_flags), context.trace_state.to_header())
    assert again == context


class _Tokens:
    """An authenticator of tokens, and its key, so that the bytes can also be what a valid signature covers."""

    def __init__(self) -> None:
        self.issuer = TokenIssuer(Path(mkdtemp(prefix="fuzz-")), lambda: _NOW_NS)
        self._loop = asyncio.new_event_loop()

    def credential(self, token: str) -> Credential | None:
        """Return the credential of a token; None when it is refused."""
        try:
            return self._loop.run_until_complete(self.issuer.authenticator.authenticate(token))
        except UnauthenticatedError:
            return None


_tokens: list[_Tokens] = []


def json_web_token(given: bytes) -> None:
    """A token is refused as unauthenticated, or gives a credential of its subject that ends; nothing else happens.

    Bytes that begin with `{` are the claims of a token with a valid signature; others are the token.
    """
    if not _tokens:
        _tokens.append(_Tokens())
    (tokens,) = _tokens
    if not given.startswith(b"{"):
        assert tokens.credential(given.decode("latin-1")) is None
        return
    credential = tokens.credential(tokens.issuer.signed(given))
    if credential is not None:
        claims: Mapping[str, Any] = json.loads(given)
        assert credential.actor.id == claims["sub"]
        assert credential.kind == "jwt"
        assert credential.expires_ns is not None
        assert claims["iss"], jwt.__version__


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "otlp-json": otlp_json,
    "canonical-form": canonical_form,
    "traceparent": trace_context,
    "jwt": json_web_token,
}
