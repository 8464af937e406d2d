"""Token buckets: how many requests, records or bytes somebody may cause in a time. Time is given, memory is bounded."""

import math
import threading
from collections.abc import Callable, Hashable
from enum import StrEnum
from typing import Final, Generic, TypeVar

import msgspec

from service.errors import ThrottledError

K = TypeVar("K", bound=Hashable)

BURST_S: Final = 10
"""A bucket holds what its rate brings in so many seconds, and at least 1."""

MAX_BUCKETS: Final = 16_384
"""The buckets in memory, of one kind. Whoever finds no place shares one with others who find none."""


class Rate(msgspec.Struct, frozen=True):
    """So many in so many seconds."""

    amount: int
    seconds: int


class Limit(StrEnum):
    """What a request can be over."""

    CREDENTIAL_REQUESTS = "credential_requests"
    CREDENTIAL_BYTES = "credential_bytes"
    SOURCE_REQUESTS = "source_requests"
    UNAUTHENTICATED_REQUESTS = "unauthenticated_requests"
    TENANT_JOBS = "tenant_jobs"
    TENANT_RECORDS = "tenant_records"
    TENANT_BYTES = "tenant_bytes"


class RequestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one process, by the names of `Limit`; None is no limit. `docs/configuration.md` describes each."""

    credential_requests: Rate | None = None
    credential_bytes: Rate | None = None
    source_requests: Rate | None = None
    unauthenticated_requests: Rate | None = None
    tenant_jobs: Rate | None = None
    tenant_records: Rate | None = None
    tenant_bytes: int | None = None


class Buckets(Generic[K]):
    """A token bucket for each key. A full bucket takes no memory, so a key cannot get a new one by being forgotten.

    Any thread may use it. Without a rate nothing is ever too much.
    """

    def __init__(self, rate: Rate | None, monotonic: Callable[[], float], *, most: int = MAX_BUCKETS) -> None:
        self._has_rate = rate is not None
        self._one_s = 0.0 if rate is None else rate.seconds / rate.amount
        self._whole_s = max(BURST_S, self._one_s)
        self._monotonic = monotonic
        self._most = most
        # When each bucket will be full again. What is taken from it moves this time on.
        self._full_at: dict[K | None, float] = {}
        self._swept_at = float("-inf")
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many buckets are in memory."""
        return len(self._full_at)

    def wait_s(self, key: K, amount: int = 1) -> float:
        """Return after how many seconds the bucket will hold `amount`; 0 when it does."""
        return self._use(key, amount, spent=0)

    def take(self, key: K) -> float:
        """Take one from the bucket and return 0; or take none, and return after how many seconds there will be one."""
        return self._use(key, 1, spent=1)

    def spend(self, key: K, amount: int) -> None:
        """Take `amount` although the bucket may not hold it: it owes the rest. Of a negative amount, give it back."""
        self._use(key, None, spent=amount)

    def _use(self, key: K, needed: int | None, *, spent: int) -> float:
        if not self._has_rate:
            return 0.0
        with self._lock:
            now = self._monotonic()
            place = self._place(key, now)
            full_at = max(now, self._full_at.get(place, now))
            if needed is not None:
                wait_s = full_at - now + needed * self._one_s - self._whole_s
                if wait_s > 0:
                    return wait_s
            full_at += spent * self._one_s
            if full_at > now:
                self._full_at[place] = full_at
            else:
                self._full_at.pop(place, None)
            return 0.0

    def _place(self, key: K, now: float) -> K | None:
        if key in self._full_at or len(self._full_at) < self._most:
            return key
        if now - self._swept_at >= 1:
            self._swept_at = now
            self._full_at = {each: full_at for each, full_at in self._full_at.items() if full_at > now}
        return key if len(self._full_at) < self._most else None


def throttled(what: str, wait_s: float, limit: Limit) -> ThrottledError:
    """Return the refusal of a request that is over a limit, and would not be in `wait_s` seconds."""
    retry_after_s = math.ceil(wait_s)
    return ThrottledError(f"{what}: wait {retry_after_s} s", retry_after_s, limit)
