"""JSON Web Tokens as credentials: what holds, what does not, and what happens when the provider's keys change."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from service.api.auth import BearerAuthenticator
from service.api.jwks import fetch_from
from service.api.jwt import JwtAuthenticator
from service.api.jwt_keys import KeySet
from service.api.jwt_settings import JwtSettings
from service.errors import SettingsError, TryLaterError
from telemetry import names
from tests.support.api import ApiUnderTest, Client, problem_of
from tests.support.ids import ManualClock
from tests.support.sqlite_stores import SqliteStore

ISSUER, AUDIENCE = "https://id.example", "auditrace"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK_RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()
OTHER = ed25519.Ed25519PrivateKey.generate()

Jwk = Mapping[str, Any]


def _jwk(key: Any, **members: str) -> Jwk:
    if isinstance(key, rsa.RSAPrivateKey):
        algorithm = RSAAlgorithm
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = ECAlgorithm
    else:
        algorithm = OKPAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **members}


class Provider:
    """An identity provider: a key set in a file, and tokens signed as told."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self.path = path
        self.clock = clock
        self.publish(_jwk(RSA, kid="rsa"), _jwk(EC, kid="ec"), _jwk(ED, kid="ed"))

    def publish(self, *keys: Jwk) -> None:
        """Replace the key set."""
        self.path.write_text(json.dumps({"keys": keys}), encoding="utf-8")

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return claims that hold, changed as told; None removes a claim."""
        now = self.clock.now_ns // 1_000_000_000
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "zoe@example.org",
            "exp": now + 300,
            "iat": now,
            "roles": ["operator", "auditor"],
            "tenant": "default",
        }
        return {name: value for name, value in {**claims, **changed}.items() if value is not None}

    def token(self, key: Any = ED, algorithm: str = "EdDSA", kid: str | None = "ed", **changed: Any) -> str:
        """Return a token."""
        headers = {} if kid is None else {"kid": kid}
        return jwt.encode(self.claims(**changed), key, algorithm=algorithm, headers=headers)


class Trusting:
    """An API that takes API keys and the tokens of one provider."""

    def __init__(self, folder: Path) -> None:
        self.store = SqliteStore(folder)
        assert isinstance(self.store.clock, ManualClock)
        self.provider = Provider(folder / "jwks.json", self.store.clock)
        settings = JwtSettings(issuer=ISSUER, audience=AUDIENCE, jwks=str(self.provider.path), tenant_claim="tenant")
        keys = KeySet(fetch_from(settings.jwks), self.store.clock)
        tokens = JwtAuthenticator(settings, keys, self.store.clock)
        self.api = ApiUnderTest(self.store, folder, authenticate=lambda keys: BearerAuthenticator(keys, tokens))

    def close(self) -> None:
        """Stop."""
        self.api.close()
        self.store.close()


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trusting]:
    """An API whose provider does not change, for all tests that only ask whether a token holds."""
    opened = Trusting(tmp_path_factory.mktemp("jwt"))
    yield opened
    opened.close()


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[Trusting]:
    """An API of the test's own, whose provider may change its keys and whose clock may be moved."""
    opened = Trusting(tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [(RSA, "RS256", "rsa"), (EC, "ES256", "ec"), (ED, "EdDSA", "ed")],
    ids=["RS256", "ES256", "EdDSA"],
)
def test_a_token_of_the_provider_acts_as_its_subject(changing: Trusting, key: Any, algorithm: str, kid: str) -> None:
    """Subject, tenant and roles come from the token; the record names the subject as a user."""
    client = Client(changing.api, changing.provider.token(key, algorithm, kid, tenant="acme"))
    job = client.new_job()
    record = changing.api.record(event_name=names.EVENT_JOB_CREATE)
    assert (job["created_by"], job["tenant_id"]) == ("zoe@example.org", "acme")
    assert (record[names.AUDIT_ACTOR_ID], record[names.AUDIT_ACTOR_TYPE]) == ("zoe@example.org", "user")
    changing.api.refused(
        names.EVENT_JOB_CONFIRM,
        403,
        "forbidden",
        lambda: client.post(f"/v1/jobs/{job['id']}/confirm", {"confirmed": True}),
    )


def test_api_keys_go_on_to_be_taken(trusting: Trusting) -> None:
    """Beside tokens, API keys authenticate as before."""
    assert trusting.api.someone().get("/v1/jobs").status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"iss": None},
        {"aud": "something-else"},
        {"aud": None},
        {"aud": ["a", "b"]},
        {"exp": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\u0000b"},
        {"sub": "x" * 257},
        {"sub": "anonymous"},
        {"sub": "auditrace"},
        {"sub": "Auditrace"},
        {"sub": "os:root@db1"},
        {"sub": "OS:root@db1"},
        {"sub": " zoe"},
        {"sub": "zoe "},
        {"sub": "zoe  smith"},
        {"sub": "z\u200boe"},
        {"sub": "z\u202eoe"},
        {"sub": "zoe\ufe0f"},
        {"sub": "zoe\u3164"},
        {"sub": "zoe\u0308"},
        {"sub": "\uff5aoe"},
        {"sub": "z\u043ee"},
        {"sub": "zoe\ue000"},
        {"tenant": "acme\u200b"},
        {"tenant": "acme "},
        {"tenant": "\uff41cme"},
        {"tenant": None},
        {"tenant": ""},
        {"tenant": ["default"]},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": 10**400},
        {"exp": -(10**400)},
        {"exp": -1},
        {"exp": 10**18},
        {"exp": ["1"]},
        {"exp": "99999999999"},
        {"nbf": "now"},
        {"nbf": 10**400},
        {"nbf": -1},
        {"nbf": True},
        {"nbf": [0]},
        {"iat": "now"},
        {"iat": 10**400},
        {"iat": -1},
        {"iat": float("-inf")},
        {"iat": False},
        {"iat": {}},
    ],
)
def test_claims_that_do_not_hold_are_401(trusting: Trusting, claims: dict[str, Any]) -> None:
    """A token of another issuer or audience, without an end, a subject or a tenant, or with odd ones, is nobody's."""
    problem_of(
        Client(trusting.api, _signed(trusting.provider.claims(**claims))).get("/v1/jobs"), 401, "unauthenticated"
    )


def test_a_token_holds_from_its_beginning_to_its_end(changing: Trusting) -> None:
    """By the service's clock, with half a minute of leeway on either side."""
    now = changing.provider.clock.now_ns // 1_000_000_000
    client = Client(changing.api, changing.provider.token(nbf=now + 60, exp=now + 120))
    told = problem_of(client.get("/v1/jobs"), 401, "unauthenticated")["detail"]
    assert "not valid yet" in told
    for seconds, status in ((31, 200), (88, 200), (32, 401)):
        changing.provider.clock.advance(seconds)
        assert client.get("/v1/jobs").status_code == status
    assert "expired" in client.get("/v1/jobs").json()["detail"]


@pytest.mark.parametrize(
    ("expires", "shown"),
    [
        (1767323105, "2026-01-02T03:05:05.000000000Z"),
        (1767323105.75, "2026-01-02T03:05:05.000000000Z"),
    ],
)
def test_a_token_tells_until_when_it_holds(trusting: Trusting, expires: float, shown: str) -> None:
    """`/v1/me` names the subject, its tenant and roles, and the end that the token states, without the leeway."""
    token = trusting.provider.token(exp=expires, tenant="acme", roles=["auditor", "operator", "nothing"])
    assert Client(trusting.api, token).get("/v1/me").json() == {
        "actor_id": "zoe@example.org",
        "actor_type": "user",
        "issuer": ISSUER,
        "credential_id": None,
        "person": None,
        "tenant_id": "acme",
        "roles": ["operator", "auditor"],
        "credential_kind": "jwt",
        "expires_at": shown,
    }


@pytest.mark.parametrize(
    ("roles", "status"),
    [
        (["operator"], 200),
        ("viewer operator", 200),
        (["admin"], 200),
        (["Operator"], 403),
        (["emitter"], 403),
        ([], 403),
        (None, 403),
        ({"operator": True}, 403),
        ([["operator"]], 403),
        (7, 403),
    ],
)
def test_roles_are_those_of_the_claim_and_no_others(trusting: Trusting, roles: Any, status: int) -> None:
    """Roles come as a list or a text of names; what is no role gives no permission, and is no error."""
    assert Client(trusting.api, trusting.provider.token(roles=roles)).get("/v1/jobs").status_code == status


def test_a_token_signed_by_another_key_is_401(trusting: Trusting) -> None:
    """A signature by a key of another owner, under a known or an unknown key id, is nobody's."""
    for kid in ("ed", "unknown", None):
        problem_of(
            Client(trusting.api, trusting.provider.token(OTHER, kid=kid)).get("/v1/jobs"), 401, "unauthenticated"
        )


def test_a_token_that_was_edited_is_401(trusting: Trusting) -> None:
    """Another payload or header under the same signature is nobody's."""
    head, payload, signature = trusting.provider.token(roles=["viewer"]).split(".")
    edited = _segment(trusting.provider.claims(roles=["admin"]))
    other_head = _segment({"alg": "EdDSA", "kid": "ed", "typ": "JWT", "x": 1})
    for token in (f"{head}.{edited}.{signature}", f"{other_head}.{payload}.{signature}", f"{head}.{payload}."):
        problem_of(Client(trusting.api, token).get("/v1/jobs"), 401, "unauthenticated")


@pytest.mark.parametrize("alg", ["none", "None", "", "HS256", "RS256", "PS256", "ES384", None, 5])
def test_the_algorithm_is_the_keys_and_never_the_tokens(trusting: Trusting, alg: Any) -> None:
    """No signature, one by the public key as a secret, or one under the name of another algorithm does not hold."""
    head = _segment({"alg": alg, "kid": "ed", "typ": "JWT"} if alg is not None else {"kid": "ed"})
    signed = f"{head}.{_segment(trusting.provider.claims())}"
    public = ED.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signatures = [b"", hmac.new(public, signed.encode(), hashlib.sha256).digest(), ED.sign(signed.encode())]
    for signature in signatures:
        token = f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
        problem_of(Client(trusting.api, token).get("/v1/jobs"), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("jwk", "key", "algorithm"),
    [
        ({"kty": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("="), "kid": "x"}, b"s" * 32, "HS256"),
        (_jwk(P384, kid="x"), P384, "ES384"),
        (_jwk(RSA, kid="x", alg="RS512"), RSA, "RS512"),
        (_jwk(RSA, kid="x", use="enc"), RSA, "RS256"),
        (_jwk(WEAK_RSA, kid="x"), WEAK_RSA, "RS256"),
    ],
    ids=["a secret", "another curve", "another hash", "for encryption", "too short"],
)
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_only_keys_of_the_fixed_kinds_are_used(changing: Trusting, jwk: Jwk, key: Any, algorithm: str) -> None:
    """A key set that holds secrets, keys for encryption or weak keys does not make tokens signed by them hold."""
    changing.provider.publish(_jwk(ED, kid="ed"), jwk)
    problem_of(
        Client(changing.api, changing.provider.token(key, algorithm, "x")).get("/v1/jobs"), 401, "unauthenticated"
    )
    assert Client(changing.api, changing.provider.token()).get("/v1/jobs").status_code == 200


@pytest.mark.parametrize(
    "token",
    [
        "..",
        "a.b.c",
        "e30.e30.",
        "e30.e30.e30",
        "\u00e9.\u00e9.\u00e9",
        "AA.AA.AA",
        "=.=.=",
        "e30..e30",
        "bnVsbA.e30.AA",
    ],
)
def test_what_is_no_token_is_401(trusting: Trusting, token: str) -> None:
    """Text that only looks like a token is nobody's, and breaks nothing."""
    problem_of(Client(trusting.api, token).get("/v1/jobs"), 401, "unauthenticated")


def test_a_lone_key_needs_no_id(changing: Trusting) -> None:
    """With one key in the set, tokens need not name it; with several they must."""
    assert Client(changing.api, changing.provider.token(kid=None)).get("/v1/jobs").status_code == 401
    changing.provider.clock.advance(601)
    changing.provider.publish(_jwk(ED))
    assert Client(changing.api, changing.provider.token(kid=None)).get("/v1/jobs").status_code == 200


def test_a_new_key_is_taken_when_a_token_names_it(changing: Trusting) -> None:
    """After the provider rotated its key, the first token with the new id fetches the set; the old key ends."""
    assert Client(changing.api, changing.provider.token()).get("/v1/jobs").status_code == 200
    changing.provider.publish(_jwk(OTHER, kid="new"))
    changing.provider.clock.advance(31)
    assert Client(changing.api, changing.provider.token(OTHER, kid="new")).get("/v1/jobs").status_code == 200
    assert Client(changing.api, changing.provider.token()).get("/v1/jobs").status_code == 401


def test_a_key_that_was_taken_away_ends_within_ten_minutes(changing: Trusting) -> None:
    """Though no token names a new key, the set is fetched again after ten minutes."""
    assert Client(changing.api, changing.provider.token()).get("/v1/jobs").status_code == 200
    changing.provider.publish(_jwk(OTHER, kid="new"))
    changing.provider.clock.advance(601)
    answer = Client(changing.api, changing.provider.token()).get("/v1/jobs")
    assert "a key that is not known" in problem_of(answer, 401, "unauthenticated")["detail"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"keys": []}', '{"keys": 5}', '{"keys": [{"kty": "oct", "k": "AA"}]}', "null"]
)
def test_without_keys_nobody_is_told_that_a_token_is_wrong(changing: Trusting, text: str) -> None:
    """A key set that cannot be read is 503, not 401: the token may well hold."""
    changing.provider.path.write_text(text, encoding="utf-8")
    answer = Client(changing.api, changing.provider.token()).get("/v1/jobs")
    problem_of(answer, 503, "try_later")
    assert answer.headers["retry-after"] == "30"
    changing.provider.publish(_jwk(ED, kid="ed"))
    changing.provider.clock.advance(31)
    assert Client(changing.api, changing.provider.token()).get("/v1/jobs").status_code == 200


def test_known_keys_go_on_while_the_provider_is_away(changing: Trusting) -> None:
    """A key set that can no longer be fetched changes nothing for tokens of keys that are known."""
    far = changing.provider.clock.now_ns // 1_000_000_000 + 7200
    assert Client(changing.api, changing.provider.token(exp=far)).get("/v1/jobs").status_code == 200
    changing.provider.path.unlink()
    changing.provider.clock.advance(3600)
    assert Client(changing.api, changing.provider.token(exp=far)).get("/v1/jobs").status_code == 200


def test_forged_key_ids_do_not_flood_the_provider() -> None:
    """Unknown key ids cause one fetch in half a minute, however many tokens name them."""
    fetched, clock = _Fetches([_jwk(ED, kid="ed")]), ManualClock()

    async def ask() -> None:
        keys = KeySet(fetched, clock)
        assert await keys.key("ed") is not None
        assert fetched.count == 1
        for number in range(50):
            assert await keys.key(f"forged-{number}") is None
        assert fetched.count == 1
        clock.advance(31)
        await asyncio.gather(*(keys.key(f"forged-{number}") for number in range(50)))
        assert fetched.count == 2

    asyncio.run(ask())


def test_a_reload_fetches_the_set_again_for_the_next_token() -> None:
    """However fresh the set is; the known keys stay in use until then."""
    fetched, clock = _Fetches([_jwk(ED, kid="ed")]), ManualClock()

    async def ask() -> None:
        keys = KeySet(fetched, clock)
        keys.expire()
        for count in (1, 2):
            assert await keys.key("ed") is not None
            assert await keys.key("ed") is not None
            assert fetched.count == count
            keys.expire()

    asyncio.run(ask())


def test_a_slow_provider_holds_up_nobody_whose_key_is_known() -> None:
    """While one request waits for the set to be fetched again, tokens of known keys are checked at once."""
    fetched, clock = _Fetches([_jwk(ED, kid="ed")]), ManualClock()

    async def ask() -> None:
        keys = KeySet(fetched, clock)
        await keys.key("ed")
        clock.advance(31)
        fetched.gate.clear()
        waiting = asyncio.create_task(keys.key("new"))
        try:
            await asyncio.to_thread(fetched.entered.wait)
            assert await asyncio.wait_for(keys.key("ed"), 10) is not None
            assert not waiting.done()
        finally:
            fetched.gate.set()
        assert await waiting is None

    asyncio.run(ask())


@pytest.mark.parametrize(
    "jwks", ["http://id.example/jwks", "ftp://id.example/jwks", "http://127.0.0.1.example/", "https://id.example:port/"]
)
def test_keys_are_not_taken_from_where_others_could_add_one(jwks: str) -> None:
    """A key set over plain HTTP from another machine is refused before anything is served."""
    with pytest.raises(SettingsError, match="https"):
        fetch_from(jwks)


def test_keys_are_fetched_over_http_and_errors_are_not_keys() -> None:
    """A set comes from a URL as from a file; an answer that is an error counts as none."""
    answers = [(500, b"down"), (200, json.dumps({"keys": [_jwk(ED, kid="ed")]}).encode()), (302, b"")]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.pop(0)
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
            pass

    async def ask(url: str) -> None:
        clock = ManualClock()
        keys = KeySet(fetch_from(url), clock)
        with pytest.raises(TryLaterError):
            await keys.key("ed")
        for _ in range(2):
            clock.advance(700)
            assert await keys.key("ed") is not None

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        asyncio.run(ask(f"http://127.0.0.1:{server.server_port}/jwks"))
        server.shutdown()
        serving.join()
    assert answers == []


def test_errors_of_the_provider_are_not_keys() -> None:
    """An HTTP error of the provider is no key set: without keys the answer is to try later."""

    def fail() -> bytes:
        raise httpx.ConnectError("refused")

    async def ask() -> None:
        with pytest.raises(TryLaterError):
            await KeySet(fail, ManualClock()).key("ed")

    asyncio.run(ask())


class _Fetches:
    """A provider that counts how often it is asked, and can be made to take its time."""

    def __init__(self, keys: Sequence[Jwk]) -> None:
        self.count = 0
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self._keys = keys

    def __call__(self) -> bytes:
        self.count += 1
        if not self.gate.is_set():
            self.entered.set()
            self.gate.wait()
        return json.dumps({"keys": self._keys}).encode()


def _signed(claims: Mapping[str, Any]) -> str:
    """Sign claims as they are, those too that a library would refuse to sign."""
    signed = f"{_segment({'alg': 'EdDSA', 'kid': 'ed', 'typ': 'JWT'})}.{_segment(claims)}"
    return f"{signed}.{base64.urlsafe_b64encode(ED.sign(signed.encode())).decode().rstrip('=')}"


def _segment(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
