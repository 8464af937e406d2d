"""Bounds what one credential may cause, and what anybody may cause without one.

A request without a valid credential costs work before it is refused: a look-up of the key, or the check of a signature.
So its source pays before that work, and gets back what it paid if the credential is valid. A source that has nothing
left is refused, but for credentials that were valid a short while ago: a flood from one address locks out nobody else
who has that address.
"""

import asyncio
import hashlib
import ipaddress
import math
from collections.abc import Callable, Mapping
from typing import Final

from service.api.auth import KEY_PREFIX, Authenticator, Credential
from service.errors import ThrottledError, TryLaterError, UnauthenticatedError
from service.operations.budgets import Owner
from service.operations.rates import Buckets, Limit, RequestLimits, throttled
from service.ports import ApiKey, Clock, Reads

MAX_KNOWN_TOKENS: Final = 8192
"""The tokens that are known to have been valid, as hashes; the one that was used longest ago makes room."""

_KEYS_AGE_S: Final = 5
_LOOK_S: Final = 0.25
_IPV6_SITE: Final = 64
_ALL: Final = "all"


class Throttle:
    """The limits of credentials and sources, in one process. Only one event loop may use it."""

    def __init__(self, limits: RequestLimits, reads: Reads, clock: Clock, monotonic: Callable[[], float]) -> None:
        self._reads = reads
        self._clock = clock
        self._monotonic = monotonic
        self._requests: Buckets[Owner] = Buckets(limits.credential_requests, monotonic)
        self._bytes: Buckets[Owner] = Buckets(limits.credential_bytes, monotonic)
        self._sources: Buckets[str] = Buckets(limits.source_requests, monotonic)
        self._unauthenticated: Buckets[str] = Buckets(limits.unauthenticated_requests, monotonic)
        self._tokens: dict[bytes, None] = {}
        self._keys: Mapping[str, ApiKey] = {}
        self._keys_read_at = float("-inf")
        self._reading = asyncio.Lock()

    @property
    def rows(self) -> int:
        """How many buckets and tokens are in memory."""
        return len(self._requests) + len(self._bytes) + len(self._sources) + len(self._tokens)

    def unauthenticated(self, address: str | None) -> None:
        """Count a request without a credential.

        Raises:
            ThrottledError: there are too many of its source, or in all.
        """
        refusal = self._paid(network_of(address))
        if refusal is not None:
            raise refusal

    async def authenticated(self, address: str | None, authenticator: Authenticator, token: str) -> Credential:
        """Return the credential of a token.

        Raises:
            UnauthenticatedError: it is not valid; its source has paid.
            ThrottledError: there are too many requests without a valid credential, and this one is not known as valid.
            TryLaterError: it cannot be checked now.
        """
        source, digest = network_of(address), hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        is_known = digest in self._tokens
        refusal = None if is_known else self._paid(source)
        if refusal is not None and not await self._is_key(token):
            raise refusal
        try:
            credential = await authenticator.authenticate(token)
        except TryLaterError:
            # Not the client's fault.
            if not is_known and refusal is None:
                self._pay(source, -1)
            raise
        except UnauthenticatedError:
            self._tokens.pop(digest, None)
            raise
        if not is_known and refusal is None:
            self._pay(source, -1)
        self._remember(digest)
        return credential

    def admit(self, owner: Owner) -> None:
        """Count a request with a valid credential. All credentials of an actor count together.

        Raises:
            ThrottledError: there are too many of this actor, or they received and sent too many bytes.
        """
        wait_s = self._requests.take(owner)
        if wait_s > 0:
            raise throttled("your requests come too fast", wait_s, Limit.CREDENTIAL_REQUESTS)
        wait_s = self._bytes.wait_s(owner, 0)
        if wait_s > 0:
            raise throttled("your requests and their answers have too many bytes", wait_s, Limit.CREDENTIAL_BYTES)

    def moved(self, owner: Owner, size: int) -> None:
        """Count bytes of a body that was received or sent."""
        self._bytes.spend(owner, size)

    async def keep_pace(self, owner: Owner) -> None:
        """Wait until an answer in pieces may send the next one."""
        while (wait_s := self._bytes.wait_s(owner, 0)) > 0:
            await asyncio.sleep(min(_LOOK_S, wait_s))

    def _paid(self, source: str) -> ThrottledError | None:
        """Take one from the bucket of the source and from that of all; or take none, and return the refusal."""
        wait_s = self._sources.wait_s(source)
        if wait_s > 0:
            what = "too many requests without a valid credential come from your address"
            return throttled(what, wait_s, Limit.SOURCE_REQUESTS)
        # Only a source that passes takes from all, and only then it gets a bucket: this bounds how many there are.
        wait_s = self._unauthenticated.take(_ALL)
        if wait_s > 0:
            what = "too many requests come without a valid credential"
            return throttled(what, wait_s, Limit.UNAUTHENTICATED_REQUESTS)
        self._sources.spend(source, 1)
        return None

    def _pay(self, source: str, number: int) -> None:
        self._sources.spend(source, number)
        self._unauthenticated.spend(_ALL, number)

    def _remember(self, digest: bytes) -> None:
        # To the end: the first one is then the one that was used longest ago.
        self._tokens.pop(digest, None)
        self._tokens[digest] = None
        if len(self._tokens) > MAX_KNOWN_TOKENS:
            del self._tokens[next(iter(self._tokens))]

    async def _is_key(self, token: str) -> bool:
        """Tell whether a token is an API key, by a list that is at most five seconds old: this costs no look-up."""
        if not token.startswith(KEY_PREFIX):
            return False
        async with self._reading:
            now = self._monotonic()
            if now - self._keys_read_at >= _KEYS_AGE_S:
                self._keys = {key.key_id: key for key in await asyncio.to_thread(self._reads.keys)}
                self._keys_read_at = now
        key_id, _, secret = token.removeprefix(KEY_PREFIX).partition("_")
        key = self._keys.get(key_id)
        if key is None or key.revoked_ns is not None or (key.expires_ns or math.inf) <= self._clock():
            return False
        given = hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
        return key.accepts(given, self._clock())


def network_of(address: str | None) -> str:
    """Return what counts as one source: an IPv4 address, or the 64 first bits of an IPv6 address.

    Example:
        >>> network_of("192.0.2.7"), network_of("2001:db8::1:2:3:4"), network_of("::ffff:192.0.2.7")
        ('192.0.2.7', '2001:db8::/64', '192.0.2.7')
    """
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return address or ""
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found), _IPV6_SITE), strict=False))
