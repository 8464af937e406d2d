"""No interleaving of operations, failures and crashes parts a job's version from its record.

Clients and workers of two processes act on one ledger in any order, alone or in one group, while their work breaks at
any moment, streams are closed under them and processes die. After each step the database is asked, and in the end the
chains.
"""

import hashlib
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.errors import BrokenLedgerError, LedgerUnavailableError, OperationFailedError, RefusedError
from service.jobs.model import JobId, Status
from service.operations.runs import WORKER_SHUTDOWN, Claimed
from service.operations.steps import Ended
from service.ports import Ledger, Transition, Work
from service.roles import ADMIN, OPERATOR, VIEWER
from service.store.sqlite.connection import connect
from telemetry import names
from telemetry.audit.record import Target
from tests.support.depth import examples
from tests.support.jobs import Jobs
from tests.support.sqlite_stores import SqliteStore
from tests.support.stores import connection_of, new_job

T = TypeVar("T")

ACTORS: Final = {"anna": ADMIN, "berta": ADMIN, "olga": OPERATOR, "vera": VIEWER}
ENDS: Final = (
    Ended(error_type=None, reason=None, exit_code=0, duration_ms=1, is_retryable=True, artifacts=[("stdout", b"x")]),
    Ended(error_type="exit", reason="it failed", exit_code=1, duration_ms=1, is_retryable=True),
    Ended(error_type="exit", reason="it failed", exit_code=2, duration_ms=1, is_retryable=False),
)
HANDED_BACK: Final = Ended(
    error_type=WORKER_SHUTDOWN, reason="stopped", exit_code=None, duration_ms=1, is_retryable=False
)

STATUS_DIFFERS: Final = "a record whose change of status is not that of the version"

# Every job has exactly the versions 1 to its own, each with one record that states it, and no record states another.
INTEGRITY: Final = {
    "a version without exactly one record that states it": """
        SELECT job_versions.job_id, job_versions.version, count(audit_records.record_id) FROM job_versions
        LEFT JOIN audit_records ON audit_records.target_type = 'job'
            AND audit_records.target_id = job_versions.job_id AND audit_records.target_version = job_versions.version
        GROUP BY job_versions.job_id, job_versions.version
        HAVING count(audit_records.record_id) <> 1 OR min(audit_records.record_id) <> min(job_versions.record_id)""",
    "a record that states a version which no job made": """
        SELECT record_id FROM audit_records
        WHERE target_version IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM job_versions
            WHERE job_versions.record_id = audit_records.record_id AND job_id = target_id AND version = target_version
        )""",
    "a body that says otherwise than its columns": """
        SELECT record_id FROM audit_records
        WHERE target_version IS NOT json_extract(body, '$.attributes."auditrace.target.version"')
            OR target_id IS NOT json_extract(body, '$.attributes."audit.target.id"')""",
    "a job whose versions do not run from 1 to its own": """
        SELECT jobs.job_id FROM jobs LEFT JOIN job_versions USING (job_id)
        GROUP BY jobs.job_id
        HAVING count(*) <> jobs.version OR min(job_versions.version) <> 1
            OR max(job_versions.version) <> jobs.version""",
    "a version of no job": "SELECT job_id FROM job_versions WHERE job_id NOT IN (SELECT job_id FROM jobs)",
    STATUS_DIFFERS: """
        SELECT audit_records.record_id FROM audit_records
        JOIN job_versions ON job_versions.record_id = audit_records.record_id
        LEFT JOIN job_versions AS before
            ON before.job_id = job_versions.job_id AND before.version = job_versions.version - 1
        WHERE NOT (event_name = 'input.write' AND job_versions.status = before.status) AND (
            json_extract(body, '$.attributes."auditrace.changes".status.to') IS NOT job_versions.status
            OR json_extract(body, '$.attributes."auditrace.changes".status.from') IS NOT before.status
        )""",
    "a job with two open runs, or with one though nothing runs": """
        SELECT jobs.job_id FROM jobs LEFT JOIN job_runs USING (job_id)
        GROUP BY jobs.job_id
        HAVING count(lease_until_ns) > 1 OR (jobs.status = 'running') > count(lease_until_ns)
            OR (count(lease_until_ns) = 1 AND jobs.status NOT IN ('running', 'cancelled'))""",
}


class Fault(Enum):
    """How the next work breaks."""

    BEFORE = auto()
    AFTER = auto()
    DISK_FULL = auto()
    HALF_A_CHANGE = auto()


class BrokenError(Exception):
    """Raised inside work, as a mistake in the code would be."""


class FaultyLedger:
    """A lane whose next work breaks as told; what follows, the record of the failure first of all, does not."""

    def __init__(self, lane: Ledger) -> None:
        self._lane = lane
        self.next_fault: Fault | None = None

    def submit(self, work: Work[T]) -> Future[T]:
        """Hand the work over, with the fault in it."""
        fault, self.next_fault = self.next_fault, None

        def broken(transaction: Any) -> T:
            if fault is Fault.BEFORE:
                raise BrokenError
            value = work(transaction)
            if fault is Fault.AFTER:
                raise BrokenError
            if fault is Fault.DISK_FULL:
                _fill(transaction)
            if fault is Fault.HALF_A_CHANGE:
                _change_a_job_silently(transaction)
            return value

        future = self._lane.submit(broken)
        return _refused_by_the_database(future) if fault is Fault.HALF_A_CHANGE else future


def _refused_by_the_database(committing: Future[T]) -> Future[T]:
    """Expect that the commit of this work is refused, and that of this work alone."""
    future: Future[T] = Future()

    def ended(_: Future[T]) -> None:
        error = committing.exception()
        is_refused = isinstance(error, BrokenLedgerError | RefusedError)
        future.set_exception(
            BrokenError() if is_refused else AssertionError(f"it was committed, or failed by {error!r}")
        )

    committing.add_done_callback(ended)
    return future


def _fill(transaction: Any) -> None:
    """Let the database find no room for another page, as on a full disk."""
    connection = connection_of(transaction)
    connection.execute("PRAGMA max_page_count = 1")
    try:
        connection.execute("CREATE TABLE too_large AS SELECT zeroblob(100000) AS filling")
    finally:
        connection.execute("PRAGMA max_page_count = 1000000")


def _change_a_job_silently(transaction: Any) -> None:
    """Change a job and record nothing, as forgotten code would do."""
    connection_of(transaction).execute(
        "UPDATE jobs SET version = version + 1, document = json_set(document, '$.version', version + 1)"
        " WHERE job_id = (SELECT max(job_id) FROM jobs)"
    )


ACTOR = st.sampled_from(["anna", "berta", "anna", "berta", "olga", "vera"])
PROCESS = st.sampled_from([0, 1])
PICK = st.integers(0, 7)
ACTION = st.sampled_from(
    ["draft", "confirm", "confirm", "confirm only", "reject", "run", "retry", "cancel", "write_input"]
)
NEXT: Final = {
    Status.CREATED: "draft",
    Status.DRAFT_READY: "confirm",
    Status.CONFIRMED: "run",
    Status.FAILED: "retry",
}


class JobMachine(RuleBasedStateMachine):
    """Clients and workers of two processes on one ledger."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._ledgers: list[FaultyLedger] = []
        self._path = Path(self._folder.name, "ledger.db")
        self._processes = [Jobs(self._path.parent, instance=number, around=self._faulty(number)) for number in (0, 1)]
        self._job_ids: list[JobId] = []
        self._claims: list[Claimed] = []

    def teardown(self) -> None:
        """Check the chains, then close."""
        try:
            report = self._processes[0].store.verify()
            assert report.findings == ()
            assert report.records == len(self._processes[0].records())
        finally:
            for process in self._processes:
                process.close()
            self._folder.cleanup()

    @initialize()
    def begin(self) -> None:
        """Two queued jobs and a new one, so that there is something to do."""
        self._job_ids += [process.queued("true").job_id for process in self._processes]
        self._create(0, "anna")

    @rule(process=PROCESS, actor=ACTOR)
    def create(self, process: int, actor: str) -> None:
        """Somebody creates a job."""
        self._try(lambda: self._create(process, actor))

    @rule(process=PROCESS, actor=ACTOR, pick=PICK, action=ACTION)
    def act(self, process: int, actor: str, pick: int, action: str) -> None:
        """Somebody does something to a job."""
        self._try(self._action(process, actor, pick, action))

    @rule(process=PROCESS, pick=PICK, end=st.sampled_from(ENDS))
    def go_on(self, process: int, pick: int, end: Ended) -> None:
        """What usually comes next happens to a job, so that many get far."""
        jobs, job_id = self._processes[process], self._pick(pick)
        status = jobs.job(job_id).status
        if status is Status.QUEUED:
            self.claim(process)
        elif status is Status.RUNNING and self._claims:
            self.finish(process, pick, end, True)
        elif status in NEXT:
            self._try(self._action(process, "berta", pick, NEXT[status]))

    @rule(process=PROCESS, acts=st.lists(st.tuples(ACTOR, PICK, ACTION), min_size=2, max_size=5))
    def act_together(self, process: int, acts: list[tuple[str, int, str]]) -> None:
        """Several do something at once, in one group of the lane."""
        jobs = self._processes[process]
        outcomes = jobs.together([self._action(process, *act) for act in acts])
        unexpected = [one for one in outcomes if isinstance(one, Exception) and not _is_expected(one)]
        assert unexpected == []

    @rule(
        process=PROCESS,
        key=st.sampled_from("kl"),
        action=st.sampled_from(["run", "retry", "cancel", "reject"]),
        pick=PICK,
    )
    def repeat(self, process: int, key: str, action: str, pick: int) -> None:
        """A request is sent with a key, and at once again."""
        client, job_id = self._processes[process].client(), self._pick(pick)
        for _ in range(2):
            self._try(lambda: getattr(client, action)(job_id, key=key))

    @rule(process=PROCESS)
    def claim(self, process: int) -> None:
        """A worker takes what is due."""
        claimed = self._try(lambda: self._processes[process].operations(retry_delay_s=1).claim())
        if claimed is not None:
            self._claims.append(claimed)

    @precondition(lambda self: self._claims)
    @rule(process=PROCESS, pick=PICK, end=st.sampled_from(ENDS), drop=st.booleans())
    def finish(self, process: int, pick: int, end: Ended, drop: bool) -> None:
        """A worker records an end, perhaps not for the last time, perhaps of a run that is not its own any more."""
        claimed = self._claims[pick % len(self._claims)]
        operations = self._processes[process].operations(claimed.run.worker_id, retry_delay_s=1)
        self._try(lambda: operations.finish(claimed, end))
        if drop:
            self._claims.remove(claimed)

    @precondition(lambda self: self._claims)
    @rule(process=PROCESS, pick=PICK)
    def release(self, process: int, pick: int) -> None:
        """A worker hands a run back."""
        claimed = self._claims.pop(pick % len(self._claims))
        self._try(lambda: self._processes[process].operations(claimed.run.worker_id).release(claimed, HANDED_BACK))

    @precondition(lambda self: self._claims)
    @rule(process=PROCESS)
    def renew(self, process: int) -> None:
        """A worker renews what it holds."""
        self._try(lambda: self._processes[process].operations().renew(self._claims))

    @rule(process=PROCESS)
    def reclaim(self, process: int) -> None:
        """A worker closes what others left behind."""
        self._try(lambda: self._processes[process].operations(retry_delay_s=1).reclaim())

    @rule(seconds=st.sampled_from([2, 61]))
    def wait(self, seconds: int) -> None:
        """Time passes: pauses end, or leases."""
        for process in self._processes:
            process.clock.advance(seconds)

    @rule(process=PROCESS, fault=st.sampled_from(Fault))
    def break_next(self, process: int, fault: Fault) -> None:
        """The next work of a process will break."""
        self._ledgers[process].next_fault = fault

    @rule(process=PROCESS)
    def fence(self, process: int) -> None:
        """Somebody closes the stream of a process that was taken for dead."""
        connection = connect(self._processes[process].store.path)
        owner = self._processes[process].store.locks(self._processes[process].lane).owner
        connection.execute("UPDATE audit_streams SET closed = 1 WHERE owner = ?", [owner])
        connection.close()

    @rule(process=PROCESS)
    def crash(self, process: int) -> None:
        """A process dies, with its claims, and is started again."""
        jobs = self._processes[process]
        owner = jobs.store.locks(jobs.lane).owner
        self._claims = [claimed for claimed in self._claims if claimed.run.worker_id != owner]
        jobs.crash()

    @invariant()
    def every_version_has_its_record(self) -> None:
        """Ask the database itself."""
        _assert_integrity(self._path)

    def _faulty(self, number: int) -> Callable[[Ledger], Ledger]:
        def around(lane: Ledger) -> Ledger:
            faulty = FaultyLedger(lane)
            self._ledgers[number : number + 1] = [faulty]
            return faulty

        return around

    def _pick(self, pick: int) -> JobId:
        return self._job_ids[pick % len(self._job_ids)]

    def _create(self, process: int, actor: str) -> None:
        client = self._processes[process].client(actor, ACTORS[actor])
        self._job_ids.append(client.create("guarded", {}).value.job_id)

    def _action(self, process: int, actor: str, pick: int, action: str) -> Callable[[], object]:
        client, job_id = self._processes[process].client(actor, ACTORS[actor]), self._pick(pick)
        if action == "write_input":
            return lambda: client.write_input(job_id, "a", actor.encode())
        if action == "confirm only":
            return lambda: client.confirm(job_id, run=False)
        return lambda: getattr(client, action)(job_id)

    def _try(self, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except Exception as error:
            if not _is_expected(error):
                raise
            return None


def _is_expected(error: Exception) -> bool:
    return isinstance(error, RefusedError | LedgerUnavailableError | BrokenError | OperationFailedError)


def _assert_integrity(path: Path, *, but: str | None = None) -> None:
    connection = connect(path, read_only=True)
    try:
        for finding, sql in INTEGRITY.items():
            if finding != but:
                assert (finding, connection.execute(sql).fetchall()) == (finding, [])
        for document, kept in connection.execute(
            "SELECT document, document_sha256 FROM jobs JOIN job_versions USING (job_id, version)"
        ):
            assert hashlib.sha256(document.encode()).hexdigest() == kept
    finally:
        connection.close()


TestJobs = JobMachine.TestCase
TestJobs.settings = settings(
    max_examples=examples(15),
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.BEFORE, OperationFailedError),
        (Fault.AFTER, OperationFailedError),
        (Fault.DISK_FULL, LedgerUnavailableError),
        (Fault.HALF_A_CHANGE, OperationFailedError),
    ],
)
def test_a_fault_is_what_it_says(tmp_path: Path, fault: Fault, error: type[Exception]) -> None:
    """Each fault that the property rests on breaks the work it is meant for, which leaves nothing but its record."""
    ledgers: list[FaultyLedger] = []

    def around(lane: Ledger) -> Ledger:
        ledgers.append(FaultyLedger(lane))
        return ledgers[-1]

    jobs = Jobs(tmp_path, around=around)
    try:
        job = jobs.client().create("guarded", {}).value
        ledgers[-1].next_fault = fault
        with pytest.raises(error):
            jobs.client().draft(job.job_id)
        assert jobs.job(job.job_id) == job
        failures = ["job.draft error"] if error is OperationFailedError else []
        assert jobs.stories(job.job_id)[1:] == failures
        assert jobs.client().draft(job.job_id).value.version == 2
    finally:
        jobs.close()


# What the database refuses by itself.

Attack = Sequence[str]

NEXT_VERSION = """
    UPDATE jobs SET version = version + 1, document = json_set(document, '$.version', version + 1)
    WHERE job_id = 'job-1'
"""
A_RECORD = """
    INSERT INTO audit_records (record_id, stream_id, number, hash, event_name, timestamp_ns, observed_ns, tenant_id,
        actor_id, action, outcome, result, target_type, target_id, target_version, versioned_job, job_id, trace_id,
        span_id, body, otlp, envelope_id)
    SELECT 'forged', stream_id, number + 10, hash, event_name, timestamp_ns, observed_ns, tenant_id, actor_id, action,
        outcome, result, target_type, target_id, {version}, CASE WHEN {version} IS NOT NULL THEN target_id END, job_id,
        trace_id, span_id,
        json_set(body, '$.attributes."audit.record.id"', 'forged', '$.attributes."audit.sequence.number"', number + 10,
            '$.attributes."auditrace.target.version"', {version}),
        otlp, envelope_id
    FROM audit_records WHERE target_version = 2
"""
A_VERSION = "INSERT INTO job_versions VALUES ('job-1', {version}, 'created', '{record_id}', 'x')"

ATTACKS: Final[dict[str, Attack]] = {
    "a change without version and record": ["UPDATE jobs SET document = json_set(document, '$.created_by', 'mallory')"],
    "a version without a record": [NEXT_VERSION],
    "a version with a record that is not there": [NEXT_VERSION, A_VERSION.format(version=3, record_id="absent")],
    "a version with the record of another": [
        NEXT_VERSION,
        "INSERT INTO job_versions SELECT job_id, 3, status, record_id, 'x' FROM job_versions WHERE version = 2",
    ],
    "a version with a record that states none": [
        A_RECORD.format(version="NULL").replace(", '$.attributes.\"auditrace.target.version\"', NULL", ""),
        NEXT_VERSION,
        A_VERSION.format(version=3, record_id="forged"),
    ],
    "a record of a version that nobody made": [A_RECORD.format(version=3)],
    "a second record of a version": [A_RECORD.format(version=2)],
    "a record and a version without the change": [
        A_RECORD.format(version=3),
        A_VERSION.format(version=3, record_id="forged"),
    ],
    "two changes with one record": [
        NEXT_VERSION,
        NEXT_VERSION,
        A_RECORD.format(version=4),
        A_VERSION.format(version=4, record_id="forged"),
    ],
    "a change back": ["UPDATE jobs SET version = 1, document = json_set(document, '$.version', 1)"],
    "another status than the version's": [
        "UPDATE jobs SET status = 'failed', document = json_set(document, '$.status', 'failed')"
    ],
    "a job that begins later": [
        """
        INSERT INTO jobs SELECT 'job-2', tenant_id, template, status, 2, created_by, created_ns, not_before_ns,
            json_set(document, '$.job_id', 'job-2') FROM jobs
        """
    ],
    "a job that is replaced": ["INSERT OR REPLACE INTO jobs SELECT * FROM jobs"],
    "a version that is replaced": ["INSERT OR REPLACE INTO job_versions SELECT * FROM job_versions WHERE version = 2"],
    "a record that is replaced": ["INSERT OR REPLACE INTO audit_records SELECT * FROM audit_records"],
    "a job that goes": ["DELETE FROM jobs"],
    "a job that goes with all its history": [
        "DELETE FROM job_versions",
        "DELETE FROM jobs",
        "DELETE FROM audit_records WHERE job_id = 'job-1'",
    ],
}


def _execute(connection: sqlite3.Connection, statements: Attack) -> None:
    for statement in statements:
        connection.execute(statement)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_the_database_itself_refuses(store: SqliteStore, attack: Attack) -> None:
    """Raw SQL that parts a job from its record fails, at the statement or at the commit, and nothing is left of it."""
    lane = store.lane()
    for version in (1, 2):
        lane.submit(lambda transaction, version=version: transaction.save(store.transition(new_job(version=version))))
    lane.close()
    before = store.rows("SELECT * FROM jobs"), store.rows("SELECT record_id FROM audit_records")
    connection = connect(store.path)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.IntegrityError):
        _execute(connection, [*attack, "COMMIT"])
    connection.close()
    assert (store.rows("SELECT * FROM jobs"), store.rows("SELECT record_id FROM audit_records")) == before
    _assert_integrity(store.path, but=STATUS_DIFFERS)


def test_forgotten_code_cannot_commit_half_a_change(store: SqliteStore) -> None:
    """Work that saves a job under a record of another version, or of no version, is refused, and that work alone."""
    lane = store.lane()
    lane.submit(lambda transaction: transaction.save(store.transition(new_job()))).result()
    job = new_job(version=2)
    halves = [
        Transition(record=store.record(names.EVENT_JOB_DRAFT, Target("job", job.job_id)), job=job),
        Transition(record=store.record(names.EVENT_JOB_DRAFT, Target("job", job.job_id, 3)), job=job),
        Transition(record=store.record(names.EVENT_JOB_DRAFT, Target("job", "job-2", 2)), job=job),
        Transition(record=store.record(names.EVENT_JOB_DRAFT, Target("job", job.job_id, 2))),
    ]

    def save(half: Transition) -> Work[object]:
        return lambda transaction: transaction.save(half)

    futures = [lane.submit(save(half)) for half in halves]
    whole = lane.submit(save(store.transition(job)))
    assert [type(future.exception()).__name__ for future in futures] == ["BrokenLedgerError"] * 4
    assert whole.result() is not None
    _assert_integrity(store.path, but=STATUS_DIFFERS)
    assert store.verify().findings == ()


def test_the_questions_find_what_they_ask_for(store: SqliteStore) -> None:
    """The checks above, on which the property rests, see each kind of harm once the constraints are taken away."""
    lane = store.lane()
    lane.submit(lambda transaction: transaction.save(store.transition(new_job()))).result()
    lane.close()
    connection = connect(store.path)
    connection.execute("PRAGMA foreign_keys = OFF")
    for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {trigger}")
    harms = {
        "a version without exactly one record that states it": "DELETE FROM audit_records WHERE target_version = 1",
        "a record that states a version which no job made": "DELETE FROM job_versions",
        "a job whose versions do not run from 1 to its own": NEXT_VERSION,
        "a version of no job": "DELETE FROM jobs",
        "a job with two open runs, or with one though nothing runs": (
            "INSERT INTO job_runs VALUES ('job-1', 1, 'running', 'w', '{}', 1)"
        ),
        STATUS_DIFFERS: "UPDATE job_versions SET status = 'failed'",
    }
    for finding, harm in harms.items():
        connection.execute("SAVEPOINT before")
        connection.execute(harm)
        assert connection.execute(INTEGRITY[finding]).fetchall() != [], finding
        connection.execute("ROLLBACK TO before")
    connection.close()
