"""What must hold in a cluster after any kill, and at the end of all."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from service.store.postgres.reconciliation import reconcile
from telemetry.audit.verify import Found, read_copy, verify
from tests.fault.cluster_nodes import Cluster

_ENDS = """
    SELECT body::jsonb -> 'attributes' ->> 'auditrace.job.id', body::jsonb -> 'attributes' -> 'auditrace.job.run',
        body::jsonb -> 'resource' ->> 'service.instance.id', body::jsonb -> 'attributes' ->> 'auditrace.result'
    FROM audit_records
    WHERE event_name = 'job.status.transition' AND job_id IN (SELECT job_id FROM jobs WHERE template = 'note')
        AND body::jsonb -> 'attributes' -> 'auditrace.changes' -> 'status' ->> 'from' = 'running'
"""


class Judged(NamedTuple):
    """What was looked at and found right."""

    records: int
    checkpoints: int
    streams: int
    jobs: int
    runs: int
    unknown: int


def require_receipts(cluster: Cluster, receipts: Sequence[Mapping[str, Any]]) -> None:
    """Check that every receipt that a client was given is a committed record with that place and hash."""
    ids = [receipt["record_id"] for receipt in receipts]
    rows = cluster.rows("SELECT record_id, stream_id, number, hash FROM audit_records WHERE record_id = ANY(%s)", ids)
    known = {row[0]: row[1:] for row in rows}
    for receipt in receipts:
        place = (receipt["stream_id"], receipt["sequence_number"], receipt["record_hash"])
        assert known.get(receipt["record_id"]) == place, receipt


def judge(cluster: Cluster) -> Judged:
    """Check a settled cluster: database and archive verify and are the same, and every run took place at most once."""
    # With every check of doctor: no version without its record, and verify over the whole database among them.
    assert list(reconcile(cluster.url, cluster.secret)) == []
    sunk: set[str] = set()
    report = verify(_noting(read_copy([cluster.archive]), sunk), public_keys=[cluster.signer.public_key])
    found = [finding for finding in report.findings if finding.code != "torn_line"]
    assert (report.verdict, found) == ("intact", []), report.summary()
    committed = {str(row[0]) for row in cluster.rows("SELECT hash FROM audit_records")}
    assert sunk == committed
    jobs, runs, unknown = _require_single_executions(cluster)
    return Judged(len(committed), report.checkpoints, report.streams, jobs, runs, unknown)


def _noting(found: Iterable[Found], hashes: set[str]) -> Iterator[Found]:
    for each in found:
        if each.body is not None:
            hashes.add(hashlib.sha256(each.body.encode()).hexdigest())
        yield each


def _require_single_executions(cluster: Cluster) -> tuple[int, int, int]:
    """Check that each run was executed at most once, and that one whose worker did not end it ended as unknown."""
    executed = Counter(cluster.executions.read_text().splitlines())
    assert [line for line, times in executed.items() if times > 1] == []
    rows = cluster.rows(
        "SELECT job_id, number, job_runs.status, worker_id FROM job_runs JOIN jobs USING (job_id)"
        " WHERE template = 'note'"
    )
    runs = {f"{job_id} {number}": (status, worker) for job_id, number, status, worker in rows}
    assert executed.keys() <= runs.keys()
    assert {status for status, _ in runs.values()} <= {"succeeded", "failed", "released", "unknown"}
    assert [line for line, (status, _) in runs.items() if status == "succeeded" and executed[line] != 1] == []
    ends = {f"{job_id} {run}": (instance, result) for job_id, run, instance, result in cluster.rows(_ENDS)}
    assert ends.keys() == runs.keys()
    for line, (status, worker) in runs.items():
        instance, result = ends[line]
        if worker != f"node-{instance}":
            assert (status, result) == ("unknown", "unknown"), f"{line} was ended by {instance} as {status}, {result}"
    jobs = {line.split()[0] for line in runs}
    return len(jobs), len(runs), sum(status == "unknown" for status, _ in runs.values())
