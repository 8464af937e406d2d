"""How long the public keys of an identity provider are used, and who waits while they are fetched."""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import httpx
from jwt import PyJWK

from service.api.jwks import FETCH_WITHIN_S, FetchKeys, signing_keys
from service.errors import TryLaterError
from service.ports import Clock

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 100
"""How many requests may wait for a fetch at the same time."""

_SECOND_NS: Final = 1_000_000_000
_RENEW_NS: Final = 300 * _SECOND_NS
_FRESH_NS: Final = 600 * _SECOND_NS
_REFETCH_NS: Final = 30 * _SECOND_NS


class KeySet:
    """The provider's public keys; fetched when first needed, every five minutes in use, and for an unknown key id.

    There is at most one fetch at a time, in a thread of its own. A request with a known key does not wait for it. It
    waits only where nobody used a token for ten minutes, and then at most 5 s: the key may have been taken out of the
    set since. So such a key is used for ten more minutes at most, while the set can be fetched. While it cannot, the
    known keys stay in use, and nobody with a known key waits again.

    Unknown key ids cause at most one fetch in 30 s, so that forged tokens cannot make this service flood the provider.
    At most 100 requests wait for one fetch, 5 s each.
    """

    def __init__(self, fetch: FetchKeys, clock: Clock, *, within_s: float = FETCH_WITHIN_S) -> None:
        self._fetch = fetch
        self._clock = clock
        self._within_s = within_s
        self._keys: Mapping[str | None, PyJWK] = {}
        self._fetched_ns: int | None = None
        self._tried_ns: int | None = None
        self._has_failed = False
        self._is_fetching = False
        self._ended: asyncio.Future[None] | None = None
        self._waiting = 0

    async def key(self, key_id: str | None) -> PyJWK | None:
        """Return the key of this id; without an id, the only key there is.

        Raises:
            TryLaterError: no keys could be fetched yet, or too many requests wait for them.
        """
        now_ns = self._clock()
        is_known = key_id in self._keys
        age_ns = _FRESH_NS + 1 if self._fetched_ns is None else now_ns - self._fetched_ns
        if not is_known or age_ns > _RENEW_NS:
            self._begin(now_ns)
        if not is_known or (age_ns > _FRESH_NS and not self._has_failed):
            await self._wait()
        if self._fetched_ns is None:
            raise TryLaterError("the keys of the identity provider cannot be fetched", retry_after_s=30)
        return self._keys.get(key_id)

    def expire(self) -> None:
        """Fetch the keys again for the next token; from any thread. If that fails, the known keys stay in use."""
        self._tried_ns = None
        self._has_failed = False
        if self._fetched_ns is not None:
            self._fetched_ns = 0

    def _begin(self, now_ns: int) -> None:
        is_patient = self._tried_ns is not None and now_ns - self._tried_ns < _REFETCH_NS
        if self._is_fetching or is_patient:
            return
        self._tried_ns, self._is_fetching = now_ns, True
        loop = asyncio.get_running_loop()
        ended = self._ended = loop.create_future()
        # The lookup of a name can take longer than the fetch may; nobody waits for that.
        loop.call_later(self._within_s, self._give_up, ended)
        threading.Thread(target=self._run, args=(loop, ended, now_ns), name="jwks", daemon=True).start()

    async def _wait(self) -> None:
        if self._ended is None or self._ended.done():
            return
        if self._waiting >= MAX_WAITING:
            raise TryLaterError("too many requests wait for the keys of the identity provider", retry_after_s=5)
        self._waiting += 1
        try:
            await asyncio.shield(self._ended)
        finally:
            self._waiting -= 1

    def _run(self, loop: asyncio.AbstractEventLoop, ended: "asyncio.Future[None]", began_ns: int) -> None:
        keys: Sequence[PyJWK] = ()
        try:
            keys = signing_keys(self._fetch())
        except (OSError, ValueError, httpx.HTTPError):
            _log.warning("the keys of the identity provider could not be fetched", exc_info=True)
        finally:
            # After the end of the service nobody needs the keys.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._take, keys, ended, began_ns)

    def _take(self, keys: Sequence[PyJWK], ended: "asyncio.Future[None]", began_ns: int) -> None:
        self._is_fetching, self._has_failed = False, not keys
        if keys:
            self._keys = {key.key_id: key for key in keys}
            if len(keys) == 1:
                self._keys = {**self._keys, None: keys[0]}
            self._fetched_ns = began_ns
        if not ended.done():
            ended.set_result(None)

    def _give_up(self, ended: "asyncio.Future[None]") -> None:
        """Let those go on who wait for this fetch."""
        if not ended.done():
            self._has_failed = True
            ended.set_result(None)
