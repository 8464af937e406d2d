"""How a database is broken in either store, past what its lanes, triggers and constraints allow."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import closing
from typing import Any, NamedTuple, TypeAlias

from tests.contract.sound_ledger import Ledger
from tests.support.both_stores import BOTH

How: TypeAlias = Sequence[str] | Callable[[Any], None]
"""Statements that change rows and that nothing holds back, or what is done to the ledger itself."""


class Break(NamedTuple):
    """What breaks a database, and the checks that find it."""

    how: How | Mapping[str, How]
    """By kind of store, where it is done differently or can happen in one of them alone."""
    found: Set[str]
    more: Mapping[str, Set[str]] = {}
    """Checks that find it in one kind of store alone, by kind."""

    @property
    def kinds(self) -> Sequence[str]:
        """The stores that can be broken so."""
        return [kind for kind in BOTH if not isinstance(self.how, Mapping) or kind in self.how]

    def carry_out(self, ledger: Ledger) -> None:
        """Break a ledger."""
        how = self.how[ledger.kind] if isinstance(self.how, Mapping) else self.how
        if callable(how):
            how(ledger)
        else:
            ledger.attack(how)

    def checks(self, kind: str) -> Set[str]:
        """Return the checks that find it in a store of this kind."""
        return self.found | self.more.get(kind, set())


def schema(*statements: str) -> How:
    """Change what the migrations made."""
    return lambda ledger: ledger.carry_out(*statements)


def damage_an_index(ledger: Any) -> None:
    """Overwrite the middle of an index's page on disk."""
    with closing(sqlite3.connect(ledger.path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        root = "SELECT rootpage FROM sqlite_schema WHERE name = 'audit_records_by_trace'"
        ((page,),) = connection.execute(root).fetchall()
        ((size,),) = connection.execute("PRAGMA page_size").fetchall()
        connection.execute("PRAGMA journal_mode = WAL")
    with ledger.path.open("r+b") as file:
        file.seek(page * size - 64)
        file.write(bytes(32))


def empty_an_index(ledger: Any) -> None:
    """Let an index know nothing of the rows of its table, as a broken restore or file system does."""
    is_ready = "UPDATE pg_index SET indisready = {} WHERE indexrelid = 'jobs_by_creator'::regclass"
    ledger.carry_out(
        is_ready.format("false"),
        "SET session_replication_role = replica",
        "INSERT INTO jobs SELECT job_id || '-', tenant_id, template, status, version, created_by, created_ns,"
        " not_before_ns, replace(document, job_id, job_id || '-') FROM jobs LIMIT 1",
        is_ready.format("true"),
        # The row stays for the index alone: all else is as it was.
        "DELETE FROM jobs WHERE job_id NOT LIKE '%-' AND job_id || '-' IN (SELECT job_id FROM jobs)",
        is_ready.format("false"),
        "UPDATE jobs SET job_id = rtrim(job_id, '-'), document = replace(document, job_id, rtrim(job_id, '-'))"
        " WHERE job_id LIKE '%-'",
        is_ready.format("true"),
    )


def let_a_partition_be_emptied(ledger: Any) -> None:
    """Drop the trigger of one partition that refuses TRUNCATE."""
    ((name,),) = ledger.rows("SELECT min(name) FROM record_partitions")
    ledger.carry_out(f"DROP TRIGGER audit_records_are_not_emptied ON {name}")
