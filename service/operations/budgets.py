"""Decides which events of a flood get a record of their own, and which are counted, and under what; pure.

docs/guarantees.md states these bounds and what they cost ("Aggregations").
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

from telemetry.audit.record import Result, Target

OTHERS: Final = Target("http.endpoint", "other")
"""The target of events of several targets. No route is called so: routes begin with a slash."""

MAX_TEXT: Final = 1024
"""The most characters of a text that is kept in memory; a longer one is cut, and ends with its SHA-256."""

Owner: TypeAlias = tuple[str, str, str]
"""An actor: its tenant, its issuer and its id."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much gets records of its own in a minute, and how much is counted apart."""

    records: int = 60
    """The records of one actor with one result: one a second, which is more than a person causes.

    So many requests of an actor may leave a record of their refusal without asking; if these come together with others,
    there are at most twice as many records.
    """
    kinds: int = 64
    """The kinds of one actor and one result that are counted apart, beyond its records; those over a limit once more.

    Of requests over a limit without a valid credential, so many kinds too.
    """
    denied_kinds: int = 1024
    """The kinds of requests without a valid credential that are counted apart."""
    rows: int = 8192
    """The actors and kinds of actors in memory. Whatever finds no place gets records, and is never counted."""


class EventKind(msgspec.Struct, frozen=True, kw_only=True):
    """What a tally counts: events of one kind are equal in all of this.

    `filter_text` is that of a read; `reason` and `source` are those of a request without a valid credential; `limit` is
    the one that a request was over.
    A folded kind stands for all kinds that differ only in their source, in their filter, or else in their target.
    """

    event_name: str
    result: Result
    target: Target
    filter_text: str | None = None
    reason: str | None = None
    source: str | None = None
    limit: str | None = None
    is_folded: bool = False


def folded(kind: EventKind) -> EventKind:
    """Return the folded kind that stands for `kind` among others."""
    if kind.source is not None:
        return msgspec.structs.replace(kind, source=None, is_folded=True)
    if kind.filter_text is not None:
        return msgspec.structs.replace(kind, filter_text=None, is_folded=True)
    return msgspec.structs.replace(kind, target=OTHERS, is_folded=True)


def cut(text: str) -> str:
    """Return a text of at most `MAX_TEXT` characters; different texts stay different.

    Example:
        >>> cut("event_name=job.create")
        'event_name=job.create'
        >>> len(cut("x" * 10_000))
        1024
    """
    if len(text) <= MAX_TEXT:
        return text
    end = f"… sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"
    return text[: MAX_TEXT - len(end)] + end


class _Budget:
    """What one actor, or all requests without a valid credential, used of one minute."""

    def __init__(self, max_kinds: int) -> None:
        self._max_kinds = max_kinds
        # Requests over a limit are apart from other refusals.
        self._kinds: dict[tuple[Result, bool], set[EventKind]] = defaultdict(set)
        self._folds: set[EventKind] = set()
        self.records: Counter[Result] = Counter()
        self.admitted = 0

    def counted_as(self, kind: EventKind) -> EventKind:
        """Return the kind under which an event is counted: its own while there is room, else the folded one."""
        known = self._kinds[kind.result, kind.limit is not None]
        return kind if kind in known or len(known) < self._max_kinds else folded(kind)

    def add(self, kind: EventKind) -> bool:
        """Count this kind apart from now on; return whether it is new."""
        known = self._known(kind)
        is_new = kind not in known
        known.add(kind)
        return is_new

    def has(self, kind: EventKind) -> bool:
        """Return whether the kind is counted apart."""
        return kind in self._known(kind)

    def _known(self, kind: EventKind) -> set[EventKind]:
        return self._folds if kind.is_folded else self._kinds[kind.result, kind.limit is not None]


class Budgets:
    """The budgets of one minute: one for each actor, and one for all requests without a valid credential.

    No budget takes anything from another one. Where the room for all actors is used up, events get records.
    """

    def __init__(self, bounds: Bounds, kept: Iterable[tuple[Owner | None, EventKind]] = ()) -> None:
        """Begin a minute; `kept` are the kinds whose counts of earlier minutes are still in memory, by owner."""
        self._bounds = bounds
        self._denied = _Budget(bounds.denied_kinds)
        self._denied_over = _Budget(bounds.kinds)
        self._actors: dict[Owner, _Budget] = {}
        self._rows = 0
        for owner, kind in kept:
            budget = self._of_nobody(kind) if owner is None else self._actors.setdefault(owner, _Budget(bounds.kinds))
            budget.add(kind)
            self._rows += owner is not None
        self._rows += len(self._actors)

    def place_denied(self, kind: EventKind) -> EventKind:
        """Return the kind under which a request without a valid credential is counted."""
        budget = self._of_nobody(kind)
        counted = budget.counted_as(kind)
        budget.add(counted)
        return counted

    def place(self, owner: Owner, kind: EventKind) -> EventKind | None:
        """Return the kind under which an event of an actor is counted; None means that it gets a record of its own.

        Requests over a limit are counted from the first one on.
        """
        budget = self._budget(owner)
        if budget is None:
            return None
        if kind.limit is None and budget.records[kind.result] < self._bounds.records:
            budget.records[kind.result] += 1
            return None
        counted = budget.counted_as(kind)
        if self._is_full and not budget.has(counted):
            return None
        self._rows += budget.add(counted)
        return counted

    def spend(self, owner: Owner, result: Result) -> None:
        """Note that an event got its record without `place`."""
        budget = self._budget(owner)
        if budget is not None:
            budget.records[result] += 1

    def admit(self, owner: Owner) -> bool:
        """Count a request that may be refused in; return whether its refusal gets a record without `place`."""
        budget = self._budget(owner)
        if budget is None:
            return True
        budget.admitted += 1
        refused = max(budget.records[Result.DENIED], budget.records[Result.REJECTED])
        return max(budget.admitted - 1, refused) < self._bounds.records

    @property
    def rows(self) -> int:
        """How many actors and kinds of actors are in memory."""
        return self._rows

    @property
    def _is_full(self) -> bool:
        return self._rows >= self._bounds.rows

    def _of_nobody(self, kind: EventKind) -> _Budget:
        return self._denied if kind.limit is None else self._denied_over

    def _budget(self, owner: Owner) -> _Budget | None:
        budget = self._actors.get(owner)
        if budget is None and not self._is_full:
            self._rows += 1
            budget = self._actors[owner] = _Budget(self._bounds.kinds)
        return budget
