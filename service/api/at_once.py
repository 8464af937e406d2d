"""Bounds how many requests of one kind are in progress at once: in a process, and of one actor."""

from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from service.errors import TooManyAtOnceError, TryLaterError

if TYPE_CHECKING:
    import asyncio

AGAIN_S: Final = 5
"""When a client may ask again."""


class InProgress(msgspec.Struct, frozen=True):
    """A request in progress: its task, which ends when the answer was sent, and its actor."""

    task: "asyncio.Task[None]"
    actor: tuple[str | None, ...]
    """Tenant, issuer and id. All credentials of an actor count together."""


class AtOnce:
    """The requests of one kind that are in progress, or what they hold in memory. For one event loop."""

    def __init__(self, kind: str, in_all: int, of_one_actor: int) -> None:
        """Count requests, or bytes if each is admitted with its bytes; `kind` is their name in the plural."""
        self._kind = kind
        self._in_all = in_all
        self._of_one_actor = of_one_actor
        self._actors: Counter[tuple[str | None, ...]] = Counter()

    @property
    def held(self) -> int:
        """How many there are now."""
        return self._actors.total()

    def admit(self, request: InProgress, weight: int = 1) -> None:
        """Count a request until its task is done. One alone is admitted, whatever its weight.

        Raises:
            TooManyAtOnceError: its actor has too many.
            TryLaterError: there are too many in all.
        """
        actor = request.actor
        if self._is_too_much(self._actors[actor], weight, self._of_one_actor):
            raise TooManyAtOnceError(
                f"you have too many {self._kind} in progress: wait until one has ended, or ask again later", AGAIN_S
            )
        if self._is_too_much(self.held, weight, self._in_all):
            raise TryLaterError(f"too many {self._kind} are in progress: ask again later", AGAIN_S)
        self._actors[actor] += weight
        request.task.add_done_callback(lambda _: self._leave(actor, weight))

    def _leave(self, actor: tuple[str | None, ...], weight: int) -> None:
        self._actors -= Counter({actor: weight})

    @staticmethod
    def _is_too_much(held: int, weight: int, bound: int) -> bool:
        return held > 0 and held + weight > bound
