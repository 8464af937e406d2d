"""The settings of accepted JSON Web Tokens, apart from the code that checks them and its libraries."""

import msgspec


class JwtSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The issuer and the claims of accepted tokens; without `tenant_claim` they act in the tenant `default`."""

    issuer: str
    audience: str
    jwks: str
    """A file, or an https URL."""
    roles_claim: str = "roles"
    tenant_claim: str | None = None
    person_claim: str | None = None
    """The claim that names the person whose token it is; None if no claim does."""
    max_life_s: int = 86_400
    """How long a token may be valid, from `iat` to `exp`; without `iat`, from now to `exp`."""
