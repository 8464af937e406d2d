"""An issuer of JSON Web Tokens with one key, and how an API accepts its tokens beside API keys."""

import json
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import OKPAlgorithm

from service.api.auth import Authenticator, BearerAuthenticator
from service.api.jwks import fetch_from
from service.api.jwt import JwtAuthenticator
from service.api.jwt_keys import KeySet
from service.api.jwt_settings import JwtSettings
from service.ports import Clock

ISSUER = "https://id.example"
_AUDIENCE = "auditrace"


class TokenIssuer:
    """Issues tokens that are valid for five minutes. Its key set is a file in `folder`."""

    def __init__(self, folder: Path, clock: Clock, person_claim: str | None = None) -> None:
        self._key = ed25519.Ed25519PrivateKey.generate()
        self._clock = clock
        public = OKPAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        path = folder / "jwks.json"
        path.write_text(json.dumps({"keys": [{**public, "kid": "ed"}]}), encoding="utf-8")
        settings = JwtSettings(
            issuer=ISSUER, audience=_AUDIENCE, jwks=str(path), tenant_claim="tenant", person_claim=person_claim
        )
        self.authenticator = JwtAuthenticator(settings, KeySet(fetch_from(settings.jwks), clock), clock)

    def beside(self, keys: Authenticator) -> Authenticator:
        """Return an authenticator for API keys and for the tokens of this issuer."""
        return BearerAuthenticator(keys, self.authenticator)

    def token(self, sub: str, *roles: str, **claims: Any) -> str:
        """Return a token of the tenant `default`; `claims` are added to the usual ones, or replace them."""
        end = self._clock() // 1_000_000_000 + 300
        usual = {"iss": ISSUER, "aud": _AUDIENCE, "sub": sub, "exp": end, "roles": list(roles), "tenant": "default"}
        return jwt.encode({**usual, **claims}, self._key, algorithm="EdDSA", headers={"kid": "ed"})

    def signed(self, payload: bytes) -> str:
        """Return a token with these bytes as its claims, whatever they are, and a valid signature."""
        return jwt.PyJWS().encode(payload, self._key, algorithm="EdDSA", headers={"kid": "ed"})
