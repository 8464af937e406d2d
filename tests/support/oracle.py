"""What must hold after any fault: every committed record is in archive and backend, as it was committed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from telemetry import names
from tests.support.archive import archived
from tests.support.deployment import Deployment
from tests.support.otlp_messages import ReceivedLog, plain_attributes
from tests.support.poll_until import poll_until


def committed(deployment: Deployment) -> dict[str, str]:
    """Return the body of every committed record, by record id, straight from the database."""
    rows = deployment.service.rows("SELECT record_id, body FROM audit_records")
    return {str(record_id): str(body) for record_id, body in rows}


def bodies_of(received: Iterable[ReceivedLog]) -> dict[str, set[str]]:
    """Return every body that was received under each record id."""
    found: dict[str, set[str]] = {}
    for each in received:
        record_id = str(plain_attributes(each.record.attributes)[names.AUDIT_RECORD_ID])
        found.setdefault(record_id, set()).add(each.record.body.string_value)
    return found


def require_conserved(deployment: Deployment, folder: Path, parked: Iterable[str] = (), timeout_s: float = 300) -> None:
    """Check conservation and identity: each committed record is in both copies, unaltered, and nothing else is.

    Both copies verify, apart from records that are parked on purpose, which are gaps.

    Args:
        deployment: settled.
        folder: gets a copy of what the backend holds.
        parked: record ids that the backend refuses.
        timeout_s: how long the collector's queue may take to drain.
    """
    expected = {record_id: {body} for record_id, body in committed(deployment).items() if record_id not in set(parked)}
    backend = deployment.backend
    await_backend(deployment, expected, timeout_s)
    assert bodies_of(archived(deployment.collector.archive_dir)) == expected
    copy = folder / "backend"
    copy.mkdir()
    lines = [body for bodies in bodies_of(backend.log_records()).values() for body in bodies]
    (copy / "bodies.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if not list(parked):
        for path in (deployment.collector.archive_dir, copy):
            report = deployment.service.verify(path)
            assert (report.verdict, [f for f in report.findings if f.code != "torn_line"]) == ("intact", []), path


def await_backend(deployment: Deployment, expected: Mapping[str, set[str]], timeout_s: float = 300) -> None:
    """Wait until the backend holds these bodies and nothing else.

    Raises:
        AssertionError: it did not in time; the message names what differs, and ends with the collector's log.
    """
    backend = deployment.backend
    before = looked_at = -1

    def is_there() -> bool:
        # Only when nothing came since the last question: decoding all of it takes time away from the backend's threads.
        nonlocal before, looked_at
        count = backend.kept_count
        is_quiet, before = count == before, count
        if not is_quiet or count == looked_at:
            return False
        looked_at = count
        return bodies_of(backend.log_records()) == expected

    try:
        poll_until(is_there, "the backend", timeout_s)
    except TimeoutError as error:
        found = bodies_of(backend.log_records())
        archive = bodies_of(archived(deployment.collector.archive_dir))
        missing = {record_id: record_id in archive for record_id in expected.keys() - found.keys()}
        differing = sorted(each for each in found.keys() - missing.keys() if found[each] != expected.get(each))
        log = deployment.collector.log_path.read_text(errors="replace")
        raise AssertionError(
            f"{error}: of {len(expected)} records {len(missing)} are missing there (in the archive or not: {missing}), "
            f"and these are altered or were never committed: {differing}; the collector said:\n{log[-8000:]}"
        ) from error


def require_receipts(deployment: Deployment, receipts: Iterable[Mapping[str, Any]]) -> None:
    """Check that every receipt that a client was given is a committed record with that place and hash."""
    rows = deployment.service.rows("SELECT record_id, stream_id, number, hash FROM audit_records")
    known = {row[0]: row[1:] for row in rows}
    for receipt in receipts:
        place = (receipt["stream_id"], receipt["sequence_number"], receipt["record_hash"])
        assert known.get(receipt["record_id"]) == place, receipt


def require_whole_jobs(deployment: Deployment) -> None:
    """Check that no job version is without exactly one record, and that no run is left dangling."""
    rows = deployment.service.rows(
        "SELECT count(*) FROM job_versions LEFT JOIN audit_records USING (record_id) WHERE audit_records.hash IS NULL"
    )
    assert rows == [(0,)]
    ((versions, records),) = deployment.service.rows(
        "SELECT (SELECT count(*) FROM job_versions),"
        " (SELECT count(*) FROM audit_records WHERE versioned_job IS NOT NULL)"
    )
    assert versions == records
