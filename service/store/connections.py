"""What the ledger's protocol asks of connections, whatever the database."""

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
    """Return what opens a block in which errors of the driver are raised as those of the service."""

    @contextmanager
    def translated() -> Generator[None]:
        try:
            yield
        except driver as error:
            raise translate(error) from error

    return translated


class Connections(ABC):
    """One connection to a database, or a few of one kind.

    Work may be done twice: a lost connection to a server is replaced, and its work is done again on the new one. So work
    reads, or it writes what stays the same when it is written twice. Work must not call these methods itself.

    Raises (each method but `close`):
        LedgerBusyError: others kept the database, or all connections, busy for too long.
        LedgerUnavailableError: the database cannot be used now.
    """

    @abstractmethod
    def run(self, work: Callable[[Execute], R]) -> R:
        """Return what `work` returns; each of its statements is a transaction of its own."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open; later calls of the other methods raise."""


class Transactions(Connections):
    """Connections on which several statements are one transaction."""

    @abstractmethod
    def read(self, work: Callable[[Execute], R]) -> R:
        """Return what `work` finds in one snapshot of what is committed."""

    @abstractmethod
    def write(self, work: Callable[[Execute], R]) -> R:
        """Run `work` in one transaction, and return what it returns after the commit."""
