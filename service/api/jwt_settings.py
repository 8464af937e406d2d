"""Whose JSON Web Tokens are accepted."""

import msgspec


class JwtSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Whose tokens are taken; without `tenant_claim` they act in the tenant `default`."""

    issuer: str
    audience: str
    jwks: str
    """A file, or an https URL."""
    roles_claim: str = "roles"
    tenant_claim: str | None = None
