"""The key set of an identity provider that is slow, broken or hostile: nobody is held up, and no wrong key is used."""

import asyncio
import gzip
import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from service.api import jwt_keys
from service.api.jwks import MAX_BYTES, MAX_KEYS, fetch_from, signing_keys
from service.api.jwt_keys import KeySet
from service.errors import TryLaterError
from tests.support.ids import ManualClock
from tests.support.raw_server import RawServer, Script, answering, dripping, endless

ED = {**OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate().public_key(), as_dict=True), "kid": "ed"}
OTHER = {**OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate().public_key(), as_dict=True), "kid": "other"}
PRIVATE = {**OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate(), as_dict=True), "kid": "x"}
ED448 = {**OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True), "kid": "x"}
P256 = {**ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True), "kid": "x"}
P384 = {**ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True), "kid": "x"}
SETTLED = {"keys": [ED]}
WITHIN_S = 0.5
"""How long a fetch may take in these tests; a server that drips would take for ever."""


def _rsa(bits: int, exponent: int = 65537) -> Mapping[str, Any]:
    key = rsa.generate_private_key(public_exponent=exponent, key_size=bits).public_key()
    return {**RSAAlgorithm.to_jwk(key, as_dict=True), "kid": "x"}


RSA = _rsa(2048)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _ok(headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n" + headers


HOSTILE: Mapping[str, Script] = {
    "drips the status line": dripping(b"", b"H"),
    "drips headers": dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "drips the body": dripping(_ok(b"\r\n") + _json(SETTLED)),
    "drips interim answers": dripping(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "never answers": lambda _, stopped: stopped.wait() and None,
    "never ends": endless,
    "is too long": answering(b" " * MAX_BYTES + _json(SETTLED)),
    "is compressed": answering(gzip.compress(_json(SETTLED)), "Content-Encoding: gzip"),
    "is a bomb": answering(gzip.compress(b" " * 10**8), "Content-Encoding: gzip"),
    "claims an unknown coding": answering(_json(SETTLED), "Content-Encoding: x"),
    "leads elsewhere": answering(b"", "Location: http://192.0.2.1/jwks", status="302 Found"),
    "leads to itself": answering(_json(SETTLED), "Location: /jwks", status="307 Temporary Redirect"),
    "fails": answering(_json(SETTLED), status="500 Internal Server Error"),
    "is cut off": lambda connection, _: connection.sendall(_ok(b"\r\n") + _json(SETTLED)),
    "is no HTTP": lambda connection, _: connection.sendall(b"\x00\xff" * 100),
    "is no JSON": answering(b"<html>keys</html>"),
    "is no UTF-8": answering(b'{"keys": "\xff"}'),
    "is UTF-16": answering(json.dumps(SETTLED).encode("utf-16")),
    "is no object": answering(_json([ED])),
    "has no keys": answering(_json({"keys": []})),
    "has keys of another type": answering(_json({"keys": {"ed": ED}})),
    "has the keys twice": answering(b'{"keys": [], "keys": ' + _json([ED]) + b"}"),
    "has a member of a key twice": answering(_json(SETTLED).replace(b'"kty"', b'"kid": "a", "kty"')),
    "is deeply nested": answering(b'{"keys": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "has 10,000 keys": answering(_json({"keys": [{"kty": "oct", "kid": str(n)} for n in range(10_000)]})),
    "has too many keys": answering(_json({"keys": [ED] * (MAX_KEYS + 1)})),
    "has a huge number": answering(_json({"keys": [ED]})[:-1] + b', "x": ' + b"9" * 5000 + b"}"),
    "has only a secret": answering(_json({"keys": [{"kty": "oct", "k": "AAAA", "kid": "ed"}]})),
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_provider_gives_no_keys_and_holds_up_nobody(answer: Script) -> None:
    """Without any key the answer is to try later, in bounded time; known keys stay in use."""

    async def ask(url: str) -> None:
        clock = ManualClock()
        keys = KeySet(fetch_from(url, within_s=WITHIN_S), clock, within_s=WITHIN_S)
        with pytest.raises(TryLaterError):
            await asyncio.wait_for(keys.key("ed"), 30)
        assert await _known(keys, clock)

    with RawServer(answer) as server:
        asyncio.run(ask(server.url))
        assert server.asked >= 1


async def _known(keys: KeySet, clock: ManualClock) -> bool:
    """Give the set a key, let it go stale while the provider is hostile, and ask for that key twice."""
    hostile, keys._fetch = keys._fetch, lambda: _json(SETTLED)
    while True:
        clock.advance(31)
        try:
            assert await keys.key("ed") is not None
            break
        except TryLaterError:
            # The fetch before has not ended yet.
            await asyncio.sleep(0)
    keys._fetch = hostile
    clock.advance(301)
    return all([await keys.key("ed") is not None for _ in range(3)])


def test_a_sound_provider_gives_its_keys() -> None:
    """The servers of these tests are not refused for another reason than the one that they stand for."""
    with RawServer(answering(_json(SETTLED), "Content-Encoding: identity")) as server:
        assert [key.key_id for key in signing_keys(fetch_from(server.url)())] == ["ed"]


def test_requests_share_one_fetch_and_wait_for_a_bounded_time() -> None:
    """However many tokens name unknown keys while a provider drips, there is one fetch, and all are answered."""

    async def ask(url: str) -> None:
        keys = KeySet(fetch_from(url, within_s=WITHIN_S), ManualClock(), within_s=WITHIN_S)
        asked = [keys.key(f"unknown-{number}") for number in range(jwt_keys.MAX_WAITING + 50)]
        answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 30)
        assert {type(answer) for answer in answers} == {TryLaterError}
        assert len({str(answer) for answer in answers}) == 2

    with RawServer(HOSTILE["drips the body"]) as server:
        asyncio.run(ask(server.url))
        assert server.asked == 1


def test_a_fetch_that_hangs_takes_no_thread_from_others_and_is_not_repeated() -> None:
    """The threads of the event loop are free, those who wait go on in time, and no second fetch begins beside it."""
    began, release, clock = threading.Semaphore(0), threading.Event(), ManualClock()
    others = set(threading.enumerate())

    def hang() -> bytes:
        began.release()
        release.wait()
        return _json(SETTLED)

    async def ask() -> None:
        keys = KeySet(hang, clock, within_s=0.05)
        try:
            for _ in range(3):
                with pytest.raises(TryLaterError):
                    await asyncio.wait_for(keys.key("ed"), 30)
                clock.advance(31)
            assert began.acquire(timeout=30)
            assert not began.acquire(blocking=False)
            started = set(threading.enumerate()) - others
            assert not [thread for thread in started if thread.name.startswith("asyncio")]
        finally:
            release.set()
        # What came too late for those who waited is used all the same.
        while keys._is_fetching:
            await asyncio.sleep(0)
        assert await keys.key("ed") is not None

    asyncio.run(ask())


def test_a_key_that_nobody_used_for_ten_minutes_is_looked_up_first() -> None:
    """It may have been taken out of the set meanwhile: the first request waits, and then it is not accepted."""
    given, clock = [_json(SETTLED), _json({"keys": [OTHER]})], ManualClock()

    async def ask() -> None:
        keys = KeySet(lambda: given.pop(0), clock)
        assert await keys.key("ed") is not None
        clock.advance(601)
        assert await keys.key("ed") is None
        assert await keys.key("other") is not None

    asyncio.run(ask())


def test_keys_in_use_are_fetched_again_in_time_and_nobody_waits() -> None:
    """After five minutes a request with a known key begins a fetch and is answered at once."""
    gate, clock, count = threading.Event(), ManualClock(), iter(range(9))
    gate.set()

    def fetch() -> bytes:
        gate.wait()
        return _json(SETTLED) if next(count) == 0 else _json({"keys": [OTHER]})

    async def ask() -> None:
        keys = KeySet(fetch, clock)
        assert await keys.key("ed") is not None
        gate.clear()
        clock.advance(301)
        try:
            assert await keys.key("ed") is not None
            assert keys._is_fetching
        finally:
            gate.set()
        while keys._is_fetching:
            await asyncio.sleep(0)
        assert await keys.key("ed") is None

    asyncio.run(ask())


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "kid": "x"},
        {**RSA, "use": "enc"},
        {**RSA, "use": None},
        {**RSA, "key_ops": ["encrypt"]},
        {**RSA, "key_ops": "verify"},
        {**RSA, "key_ops": None},
        {**RSA, "alg": "RS512"},
        {**RSA, "alg": "PS256"},
        {**RSA, "alg": "HS256"},
        {**RSA, "alg": "none"},
        {**RSA, "alg": "ES256"},
        {**RSA, "alg": ["RS256"]},
        {**RSA, "kty": "EC"},
        {**RSA, "kty": ["RSA"]},
        {**RSA, "kid": 7},
        {**RSA, "kid": ["x"]},
        {**RSA, "e": "AQ"},
        {**RSA, "n": ""},
        {**RSA, "n": 5},
        {"kty": "RSA", "kid": "x"},
        _rsa(1024),
        _rsa(2040),
        P384,
        {**P256, "alg": "ES384"},
        {**P256, "x": P256["y"]},
        {**P384, "alg": "ES256"},
        ED448,
        {**ED448, "alg": "EdDSA"},
        PRIVATE,
        "RSA",
        None,
    ],
)
def test_a_key_that_may_not_sign_here_is_left_out(jwk: Any) -> None:
    """Secrets, private keys, short keys, other uses and other algorithms are not used; the keys beside them are."""
    assert [key.key_id for key in signing_keys(_json({"keys": [jwk, ED]}))] == ["ed"]
    with pytest.raises(ValueError, match="it has no key for"):
        signing_keys(_json({"keys": [jwk]}))


@pytest.mark.parametrize(
    "jwk",
    [RSA, P256, ED, {**RSA, "use": "sig", "key_ops": ["verify"], "alg": "RS256"}, {**ED, "alg": "EdDSA"}],
)
def test_a_public_key_for_signatures_is_used(jwk: Any) -> None:
    """With or without a statement of its use."""
    assert len(signing_keys(_json({"keys": [jwk]}))) == 1
