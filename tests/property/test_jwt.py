"""Tokens that are not exactly what the provider signed: always refused as unauthenticated, whatever they are."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import OKPAlgorithm

from service.api.jwks import fetch_from
from service.api.jwt import LEEWAY_S, JwtAuthenticator
from service.api.jwt_keys import KeySet
from service.api.jwt_settings import JwtSettings
from service.errors import UnauthenticatedError
from tests.support.ids import ManualClock

KEY = Ed25519PrivateKey.generate()
ISSUER, AUDIENCE = "https://id.example", "auditrace"
LIFE_S = 3600
HEAD = '{"alg":"EdDSA","kid":"ed","typ":"JWT"}'


class Verifier:
    """Checks tokens that `KEY` may have signed, by a clock that stands still."""

    def __init__(self, folder: Path) -> None:
        path = folder / "jwks.json"
        public = {**OKPAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "ed"}
        path.write_text(json.dumps({"keys": [public]}), encoding="utf-8")
        clock = ManualClock()
        self.now = clock.now_ns // 1_000_000_000
        stated = JwtSettings(issuer=ISSUER, audience=AUDIENCE, jwks=str(path), max_life_s=LIFE_S)
        self._tokens = JwtAuthenticator(stated, KeySet(fetch_from(str(path)), clock), clock)

    def holds(self, token: str) -> bool:
        """Return whether a token is accepted; any error but that of a wrong credential fails the test."""
        try:
            asyncio.run(self._tokens.authenticate(token))
        except UnauthenticatedError:
            return False
        return True

    def payload(self, **changed: Any) -> str:
        """Return the text of claims that are accepted, changed as told."""
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "zoe", "exp": self.now + 300, "iat": self.now}
        return json.dumps({**claims, **changed})


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Verifier:
    """A verifier for all tests of this file."""
    return Verifier(tmp_path_factory.mktemp("jwt"))


def _segment(text: str | bytes) -> str:
    content = text.encode() if isinstance(text, str) else text
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _signed(payload: str | bytes, head: str | bytes = HEAD) -> str:
    """Sign any two texts, those too that are no JSON."""
    signed = f"{_segment(head)}.{_segment(payload)}"
    return f"{signed}.{_segment(KEY.sign(signed.encode()))}"


@settings(max_examples=500, deadline=None)
@given(place=st.integers(0, 10_000), length=st.integers(0, 3), text=st.text(max_size=3))
def test_an_edited_token_is_refused(verifier: Verifier, place: int, length: int, text: str) -> None:
    """Whatever is put in, taken out or replaced, at any place: the last bits of base64 and padding too."""
    token = _signed(verifier.payload())
    start = place % (len(token) + 1)
    edited = token[:start] + text + token[start + length :]
    assert verifier.holds(edited) == (edited == token)


@settings(max_examples=300, deadline=None)
@given(token=st.text() | st.lists(st.binary(max_size=60).map(_segment), min_size=3, max_size=3).map(".".join))
def test_a_text_that_nobody_signed_is_refused(verifier: Verifier, token: str) -> None:
    """Any text, and any three texts of base64url."""
    assert not verifier.holds(token)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=500, deadline=None)
@given(name=st.sampled_from(["exp", "nbf", "iat", "iss", "aud", "sub", "jti", "roles", "tenant"]), value=json_values)
def test_claims_of_any_type_are_accepted_or_refused_and_break_nothing(
    verifier: Verifier, name: str, value: Any
) -> None:
    """A provider that signs nonsense causes no error of the service."""
    verifier.holds(_signed(verifier.payload(**{name: value})))


@settings(max_examples=500, deadline=None)
@given(name=st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "cty"]), value=json_values)
def test_heads_of_any_type_are_accepted_or_refused_and_break_nothing(verifier: Verifier, name: str, value: Any) -> None:
    """A signed head with nonsense causes no error of the service either."""
    verifier.holds(_signed(verifier.payload(), json.dumps({**json.loads(HEAD), name: value})))


@settings(deadline=None)
@given(expires=st.integers(-100, 2 * LIFE_S), issued=st.none() | st.integers(-2 * LIFE_S, 100))
def test_a_token_is_valid_for_its_own_time_and_no_longer_than_the_setting(
    verifier: Verifier, expires: int, issued: int | None
) -> None:
    """It has not ended, was not issued in the future, and lives from `iat`, else from now, for so long at most."""
    times = {"exp": verifier.now + expires, "iat": None if issued is None else verifier.now + issued}
    claims = {**json.loads(verifier.payload()), **times}
    payload = json.dumps({name: value for name, value in claims.items() if value is not None})
    is_in_time = expires + LEEWAY_S > 0 and (issued or 0) <= LEEWAY_S
    assert verifier.holds(_signed(payload)) == (is_in_time and expires - (issued or 0) <= LIFE_S)


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/jwt", "application/at+JWT", None])
def test_a_token_that_says_that_it_is_one_is_accepted(verifier: Verifier, kind: str | None) -> None:
    """`typ` is JWT or at+jwt, in any case, with or without `application/`; many providers leave it out."""
    head = {"alg": "EdDSA", "kid": "ed"} if kind is None else {"alg": "EdDSA", "kid": "ed", "typ": kind}
    assert verifier.holds(_signed(verifier.payload(), json.dumps(head)))


@pytest.mark.parametrize(
    "head",
    [
        {"typ": "dpop+jwt"},
        {"typ": "logout+jwt"},
        {"typ": "secevent+jwt"},
        {"typ": "application/application/jwt"},
        {"typ": ""},
        {"typ": None},
        {"typ": ["JWT"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": None},
        {"b64": False},
        {"b64": True},
        {"b64": False, "crit": ["b64"]},
        {"kid": None, "alg": "none"},
        {"kid": 5},
        {"kid": ["ed"]},
        {"kid": "\ud800"},
        {"alg": "none"},
        {"alg": None},
        {"alg": ["EdDSA"]},
        {"alg": "Ed448"},
        {"x5c": "x" * 4096},
    ],
    ids=str,
)
def test_a_head_with_another_meaning_is_refused(verifier: Verifier, head: dict[str, Any]) -> None:
    """Tokens for another purpose, extensions, wrong ids of keys, and heads that are too long, though signed."""
    assert not verifier.holds(_signed(verifier.payload(), json.dumps({**json.loads(HEAD), **head})))


def test_a_key_in_the_token_is_not_used(verifier: Verifier) -> None:
    """A token that brings its key, or says where to get it, is checked with the provider's key alone."""
    other = Ed25519PrivateKey.generate()
    head = json.loads(HEAD)
    head |= {
        "jwk": OKPAlgorithm.to_jwk(other.public_key(), as_dict=True),
        "jku": "http://127.0.0.1:9/",
        "x5u": "http://",
    }
    assert verifier.holds(_signed(verifier.payload(), json.dumps(head)))
    signed = f"{_segment(json.dumps(head))}.{_segment(verifier.payload())}"
    assert not verifier.holds(f"{signed}.{_segment(other.sign(signed.encode()))}")


@pytest.mark.parametrize(
    ("head", "payload"),
    [
        (HEAD[:-1] + ',"alg":"EdDSA"}', "{}"),
        ('{"kid":"other",' + HEAD[1:], "{}"),
        (HEAD, '{"sub": "root", '),
        (HEAD, '{"s\\u0075b": "root", '),
        (HEAD, '{"x": {"y": 1, "y": 2}, '),
        (HEAD, '{"x": NaN, '),
        (HEAD, '{"x": -Infinity, '),
        (HEAD, '{"x": 1e400, '),
        (HEAD, '{"x": ' + "9" * 5000 + ", "),
        (HEAD, '{"x": ' + "[" * 3000 + "]" * 3000 + ", "),
        ("[" * 3000 + "]" * 3000, "{}"),
        ("[]", "{}"),
        ("null", "{}"),
        (HEAD + " {}", "{}"),
        ("\ufeff" + HEAD, "{}"),
        (b"\xff" + HEAD.encode(), "{}"),
    ],
)
def test_json_that_readers_understand_differently_is_refused(
    verifier: Verifier, head: str | bytes, payload: str
) -> None:
    """A member twice, also within members and under escapes, numbers beyond JSON, and nesting without end."""
    whole = verifier.payload()
    assert verifier.holds(_signed(whole))
    assert not verifier.holds(_signed(whole if payload == "{}" else payload + whole[1:], head))


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"5", b'"x"', b"\xff\xfe", b"{", b"{}"])
def test_claims_that_are_no_object_are_refused(verifier: Verifier, payload: bytes) -> None:
    """Though they are signed."""
    assert not verifier.holds(_signed(payload))


def test_base64_has_one_form(verifier: Verifier) -> None:
    """Padding, the letters of the other alphabet, line breaks, and bits that say nothing are refused."""
    token = _signed(verifier.payload(sub="zoe??>>"))
    head, payload, signature = token.split(".")
    assert verifier.holds(token)
    last = signature[:-1] + chr(ord(signature[-1]) + 1)
    forms = [f"{head}.{payload}.{signature}==", f"{head}.{payload}.{last}", f"{head}.{payload}.{signature}\n"]
    forms += [f"{head}=.{payload}.{signature}", f"{head}.{payload}.{signature[:9]}\n{signature[9:]}"]
    forms += [token.replace("_", "/").replace("-", "+")] if {"_", "-"} & set(token) else []
    assert not any(verifier.holds(form) for form in forms)
