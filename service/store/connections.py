"""What the ledger protocol needs from connections to any database."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias, TypeVar

from service.errors import AuditraceError
from service.store.queries import Execute

R = TypeVar("R")
E = TypeVar("E", bound=Exception)
Translated: TypeAlias = Callable[[], AbstractContextManager[None]]


def translating(driver: type[E], translate: Callable[[E], AuditraceError]) -> Translated:
    """Return a function that opens a block; in it, errors of the driver are raised as errors of the service."""

    @contextmanager
    def translated() -> Generator[None]:
        try:
            yield
        except driver as error:
            raise translate(error) from error

    return translated


class Connections(ABC):
    """One connection to a database, or a few of one kind.

    A lost connection to a server is replaced, and the work runs once more. So work must be repeatable: it only reads,
    or writing twice has the same result as writing once. Work must not call these methods itself.

    Raises (each method but `close`):
        LedgerBusyError: others kept the database, or all connections, busy for too long.
        LedgerUnavailableError: the database cannot be used now.
    """

    @abstractmethod
    def run(self, work: Callable[[Execute], R]) -> R:
        """Run `work` and return its result; each of its statements is a transaction of its own."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections; later calls of the other methods raise."""


class Transactions(Connections):
    """Connections on which several statements are one transaction."""

    @abstractmethod
    def read(self, work: Callable[[Execute], R]) -> R:
        """Run `work` in one snapshot of what is committed, and return its result."""

    @abstractmethod
    def write(self, work: Callable[[Execute], R]) -> R:
        """Run `work` in one transaction, and return its result after the commit."""
