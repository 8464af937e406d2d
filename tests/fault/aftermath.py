"""Checks the files of a process that died or failed, as `auditrace verify` and the next start find them."""

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from service.bootstrap.databases import database_of
from service.store.sqlite.connection import connect
from service.store.sqlite.lane import COMMIT_UNKNOWN
from telemetry import names
from telemetry.audit.verify import read_copy, verify
from tests.fault.fault_child import CONFIRMER, KEY, jobs_in, relay_of
from tests.fault.faults import Ended
from tests.support.jobs import Record
from tests.support.ledger_maker import KEY as SIGNING_KEY
from tests.support.sqlite_stores import SqliteStore
from tests.support.storage import counted, measured

KEYS: Final = (SIGNING_KEY.public_key(),)

UNPAIRED: Final = """
    SELECT 'version ' || version || ' of job ' || job_versions.job_id || ' has no record'
    FROM job_versions LEFT JOIN audit_records ON audit_records.record_id = job_versions.record_id
    WHERE audit_records.record_id IS NULL
    UNION ALL
    SELECT 'record ' || audit_records.record_id || ' is of version ' || target_version || ', which there is not'
    FROM audit_records
    LEFT JOIN job_versions ON job_versions.job_id = versioned_job AND job_versions.version = target_version
    WHERE versioned_job IS NOT NULL AND job_versions.record_id IS NOT audit_records.record_id
    UNION ALL
    SELECT 'job ' || job_id || ' is not at its last version'
    FROM jobs WHERE version <> (SELECT max(version) FROM job_versions WHERE job_versions.job_id = jobs.job_id)
"""
PASSED: Final = """
    SELECT record_id FROM audit_records JOIN delivery_cursors USING (stream_id)
    WHERE audit_records.number <= delivery_cursors.number
"""


def stories(path: Path, job_id: str) -> Sequence[str]:
    """Return the records of a job, in a few words each."""
    sql = "SELECT body FROM audit_records WHERE job_id = ? ORDER BY position"
    with _opened(path) as connection:
        return [Record(body).story for (body,) in connection.execute(sql, [job_id])]


def wrong_in_database(path: Path) -> Iterator[str]:
    """Yield what is wrong with the database, before anything has mended it."""
    report = verify(database_of(f"sqlite:///{path}").records(), public_keys=KEYS)
    if report.verdict != "intact":
        yield f"verify: {report.summary()}"
    with _opened(path) as connection:
        yield from (text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok")
        yield from (f"foreign key: {row}" for row in connection.execute("PRAGMA foreign_key_check"))
        yield from (text for (text,) in connection.execute(UNPAIRED))

        def rows(sql: str) -> Sequence[tuple[object, ...]]:
            return connection.execute(sql).fetchall()

        if counted(rows) != measured(rows):
            yield f"tenants store {measured(rows)}, and the database counted {counted(rows)}"


def wrong_in_receipts(path: Path, ended: Ended) -> Iterator[str]:
    """Yield the receipts that a client holds and the ledger does not."""
    sql = "SELECT record_id, stream_id, number, hash FROM audit_records WHERE record_id = ?"
    with _opened(path) as connection:
        for receipt in itertools.chain.from_iterable(ended.values("receipts")):
            row = connection.execute(sql, receipt[:1]).fetchone()
            if row is None or list(row) != receipt:
                yield f"receipt {receipt} was given, and the ledger has {row}"


def wrong_in_job(before: Sequence[str], after: Sequence[str], found: Sequence[str], ended: Ended) -> Iterator[str]:
    """Yield what is wrong with a job that was to be confirmed: changed in part, or not as its client was told."""
    repeats = ["job.confirm noop"] * (len(found) - len(after))
    if found not in (before, [*after, *repeats]):
        yield f"the job is changed in part: {found}"
    if ended.values("receipts"):
        if found == before:
            yield "the job is unchanged, and its client has a receipt"
    elif found != before and COMMIT_UNKNOWN not in ended.values("failed"):
        yield from (f"the job is changed, and its client was told: {text}" for text in ended.values("failed"))


def wrong_when_confirmed_again(folder: Path, job_id: str, plan_sha256: str, after: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong once another process goes on: the same request again, and a checkpoint over everything."""
    jobs = jobs_in(folder, 2)
    try:
        jobs.client(CONFIRMER).confirm(job_id, plan_sha256=plan_sha256, key=KEY)
        written = jobs.store.checkpoints(jobs.lane).write()
        if written is None or written.refused:
            yield f"the next checkpoint does not cover everything: {written}"
        found = jobs.stories(job_id)
        if [story for story in found if "noop" not in story] != after:
            yield f"the request that was made again did not do it once: {found}"
        report = jobs.store.verify()
        if report.verdict != "intact":
            yield f"verify with the next checkpoint: {report.summary()}"
    finally:
        jobs.close()


def wrong_in_archive(folder: Path) -> Iterator[str]:
    """Yield what is wrong with the archive: not intact as it is, or without a record that a cursor has passed."""
    report = verify(read_copy([folder / "archive"]), public_keys=KEYS)
    if report.verdict != "intact":
        yield f"verify of the archive: {report.summary()}"
    there = {found.index.attributes[names.AUDIT_RECORD_ID] for found in read_copy([folder / "archive"]) if found.index}
    with _opened(folder / "ledger.db") as connection:
        passed = [record_id for (record_id,) in connection.execute(PASSED)]
    yield from (f"{record_id} counts as delivered, and is not" for record_id in passed if record_id not in there)


def wrong_when_delivered_again(folder: Path, max_bytes: int) -> Iterator[str]:
    """Yield what is wrong once another relay has gone on: not everything in the archive, or something else."""
    store = SqliteStore(folder, instance=2)
    try:
        if not relay_of(store, folder, max_bytes).drain(60):
            yield "the next relay cannot deliver everything"
        yield from wrong_in_archive(folder)
        ((count,),) = store.rows("SELECT count(*) FROM audit_records")
        archived = verify(read_copy([folder / "archive"]), public_keys=KEYS).records
        if archived != count:
            yield f"the archive has {archived} of {count} records"
    finally:
        store.close()


def _opened(path: Path) -> closing[sqlite3.Connection]:
    return closing(connect(path))
