"""`auditrace export`: what leaves the database, in each form, and that others understand it."""

import csv
import io
import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.cli.main import main
from service.ports import Transition
from telemetry import names
from telemetry.audit.ocsf import MAPPED, OCSF_VERSION, ocsf_event
from telemetry.audit.signer import SIGNED_EVENTS, Signer
from telemetry.audit.verify import read_copy, verify
from tests.support.catalogue import every_event
from tests.support.collector import ROOT, require_binary
from tests.support.keys import public_key
from tests.support.ledger_maker import KEY
from tests.support.service import Service
from tests.support.sqlite_stores import SqliteStore


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """The folder of a service that worked, refused and failed, and has ended."""
    with Service(tmp_path_factory.mktemp("service"), {"AUDITRACE_CHECKPOINT_INTERVAL": "1s"}) as running:
        admin = running.client()
        olga = running.client(running.key("olga", "operator"))
        for job in (olga.run("greet", name="you"), olga.run("fail")):
            olga.until(job, "succeeded", "failed")
        olga.post("/v1/jobs", {"template": "nothing"}, expect=400)
        admin.get("/v1/audit/records")
        assert running.client("atk_nobody_x").http.get("/v1/jobs").status_code == 401
    return running


def bodies(service: Service, condition: str = "1 = 1") -> list[str]:
    """Return the committed bodies in the order of their commit, straight from the database."""
    return [body for (body,) in service.rows(f"SELECT body FROM audit_records WHERE {condition} ORDER BY position")]


class Exporting:
    """Runs the command in this process, over the folder of a service."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[bytes]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, service: Service, *arguments: str, expect: int = 0) -> bytes:
        """Return what it prints, and keep what it says on standard error."""
        for name, value in service.environment.items():
            self._monkeypatch.setenv(name, value)
        try:
            status = main(["export", *arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
        printed, said = self._capsys.readouterr()
        self.said = said.decode()
        assert status == expect, self.said
        return printed

    def lines(self, service: Service, *arguments: str) -> list[Any]:
        """Return what it prints, each line decoded."""
        return [json.loads(line) for line in self(service, *arguments).split(b"\n") if line]


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Exporting:
    """The command."""
    return Exporting(monkeypatch, capsysbinary)


@pytest.fixture(scope="module")
def events(service: Service) -> list[dict[str, Any]]:
    """Every record of the service as an event, by the command as operators run it."""
    return [json.loads(line) for line in service.command("export", "--as", "ocsf").stdout.splitlines()]


def judged(events: Sequence[Mapping[str, object]]) -> tuple[int, str]:
    """Return what the published schema says of events."""
    python = require_binary("ocsf", "make tools") / "bin" / "python"
    check = ROOT / "deploy" / "tools" / "ocsf" / "check.py"
    done = subprocess.run(
        [python, check, OCSF_VERSION, "api_activity", "trace"],
        input="".join(f"{json.dumps(event)}\n" for event in events),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_bodies_come_out_byte_for_byte_and_verify(service: Service, export: Exporting, tmp_path: Path) -> None:
    """An export of bodies, and one of OTLP lines, are complete and intact with the public key."""
    key = public_key(service.folder / "keys" / "signing.pem")
    assert export(service, "--format", "jsonl").decode().split("\n")[:-1] == bodies(service)
    for form in ("jsonl", "otlp-json"):
        copy = tmp_path / f"{form}.jsonl"
        assert export(service, "--format", form, "--output", str(copy)) == b""
        assert export.said == f"{len(bodies(service))} records\n"
        report = verify(read_copy([copy]), public_keys=[key])
        assert (report.verdict, report.findings, report.records) == ("intact", (), len(bodies(service)))
    assert export(service) == (tmp_path / "otlp-json.jsonl").read_bytes()


def test_a_table_has_a_row_for_each_record(service: Service, export: Exporting) -> None:
    """CSV with a head, as the export over HTTP has it."""
    rows = list(csv.DictReader(io.StringIO(export(service, "--format", "csv").decode())))
    assert [row["record_id"] for row in rows] == [
        json.loads(body)["attributes"][names.AUDIT_RECORD_ID] for body in bodies(service)
    ]


def test_filters_leave_out_what_does_not_match(service: Service, export: Exporting) -> None:
    """Actor, job, tenant and time."""
    by_olga = export.lines(service, "--format", "jsonl", "--actor", "olga")
    assert len(by_olga) == len(bodies(service, "actor_id = 'olga'"))
    ((job, count),) = service.rows("SELECT job_id, count(*) FROM audit_records WHERE job_id <> '' GROUP BY 1 LIMIT 1")
    assert len(export.lines(service, "--format", "jsonl", "--job", job)) == count
    assert export.lines(service, "--format", "jsonl", "--tenant", "nobody") == []
    ((middle,),) = service.rows("SELECT observed_ns FROM audit_records ORDER BY position LIMIT 1 OFFSET 10")
    moment = f"{json.loads(bodies(service, f'observed_ns = {middle}')[0])['observed_timestamp'][:26]}Z"
    before = export.lines(service, "--format", "jsonl", "--until", moment)
    after = export.lines(service, "--format", "jsonl", "--since", moment)
    assert before
    assert after
    assert len(before) + len(after) == len(bodies(service))
    assert export.lines(service, "--format", "jsonl", "--since", "-400d") == [*before, *after]
    assert export.lines(service, "--format", "jsonl", "--until", "-1d") == []


def test_filters_of_the_api_are_those_of_the_command(service: Service, export: Exporting) -> None:
    """`--where` takes each filter in the words of the API: several values, exclusions, beginnings, texts."""
    noise = "event_name NOT IN ('audit.read', 'audit.checkpoint', 'audit.stream.open', 'audit.stream.close')"
    ((others, jobs, refused),) = service.rows(
        f"SELECT sum({noise} OR result <> 'success'), sum(event_name LIKE 'job.%'),"
        " sum(result IN ('rejected', 'denied')) FROM audit_records"
    )
    assert len(export.lines(service, "--format", "jsonl", "--where", "include_trail=false")) == others
    assert len(export.lines(service, "--format", "jsonl", "--where", "event_name=job.*")) == jobs
    several = ("--where", "result=rejected", "--where", "result=denied", "--where", "not_actor_id=nobody")
    assert len(export.lines(service, "--format", "jsonl", *several)) == refused
    by_worker = export.lines(service, "--format", "jsonl", "--where", "initiator_id=olga", "--where", "not_result=noop")
    assert {each["event_name"] for each in by_worker} == {"job.status.transition"}
    texts = export.lines(service, "--format", "jsonl", "--where", "q=THERE IS NO TEMPLATE")
    assert [each["event_name"] for each in texts] == ["job.create"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--where", "reslut=denied"], "--where: unknown filter reslut: did you mean result?"),
        (["--where", "result"], "--where: result: write the name of a filter, = and a value"),
        (["--where", "result=fine"], "--where: result=fine: allowed are denied, error"),
        (["--actor", "olga", "--where", "actor_id=omar"], "--actor and --where actor_id=… state the same filter"),
        (["--since", "-1h", "--where", "until=-2h"], "--since must be before --until"),
        (["--since", "yesterday"], "--since: 'yesterday' is not a time"),
        (["--since", "2026-01-02", "--until", "2026-01-01"], "--since must be before --until"),
        (["--as", "ocsf", "--format", "csv"], "not allowed with argument"),
        (["--as", "cef"], "invalid choice"),
    ],
)
def test_what_cannot_be_is_refused(service: Service, export: Exporting, arguments: list[str], says: str) -> None:
    """A wrong option ends with status 2, says what to write, and prints nothing."""
    assert export(service, *arguments, expect=2) == b""
    assert says in export.said


def test_a_file_is_there_whole_or_not_at_all(service: Service, export: Exporting, tmp_path: Path) -> None:
    """One that exists is not written over, a folder that is missing is named, and nothing is left behind."""
    there = tmp_path / "there.jsonl"
    there.write_text("precious")
    export(service, "--output", str(there), expect=2)
    assert there.read_text() == "precious"
    assert "name a new file" in export.said
    export(service, "--output", str(tmp_path / "nowhere" / "x"), expect=2)
    assert "cannot be written" in export.said
    assert list(tmp_path.iterdir()) == [there]


def test_a_broken_database_leaves_no_file(service: Service, export: Exporting, tmp_path: Path) -> None:
    """An export that fails in the middle says so, and does not leave something that looks complete."""
    broken = Service(tmp_path / "broken")
    shutil.copy(service.database, broken.database)
    with closing(sqlite3.connect(broken.database)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE audit_records SET body = '{}' WHERE position = 9")
        connection.commit()
    out = tmp_path / "out.jsonl"
    export(broken, "--as", "ocsf", "--output", str(out), expect=2)
    assert "the body of a record is damaged" in export.said
    assert not list(tmp_path.glob("*out*"))
    # Where nothing has to be understood, everything comes out, for `verify` to judge.
    assert len(export.lines(broken, "--format", "jsonl")) == len(bodies(service))


def test_every_record_of_a_real_service_is_an_event_of_ocsf(service: Service, events: list[dict[str, Any]]) -> None:
    """Requests, runs, refusals and checkpoints: the published schema of API Activity takes each of them."""
    assert len(events) == len(bodies(service))
    assert judged(events) == (0, f"{len(events)} events are right\n")


def test_every_event_of_the_catalogue_is_one_of_ocsf(tmp_path: Path) -> None:
    """With every attribute that a record may carry, and every result, the published schema takes it."""
    store = SqliteStore(tmp_path)
    lane = store.lane()
    store.checkpoints(lane)
    for record in every_event(store.ids):
        if record.event_name in SIGNED_EVENTS:
            lane.submit(lambda transaction, record=record: transaction.save_signed(record, Signer(KEY))).result()
        else:
            lane.submit(lambda transaction, record=record: transaction.save(Transition(record=record))).result()
    texts = [body for (body,) in store.rows("SELECT body FROM audit_records")]
    store.close()
    made = [ocsf_event(text) for text in texts]
    assert len(made) >= len(names.ACTIONS)
    status, said = judged(made)
    assert (status, said) == (0, f"{len(made)} events are right\n"), said


def test_the_judge_of_events_is_one(events: list[dict[str, Any]]) -> None:
    """A member that is missing, unknown or of another type is named, and so is a type that is not its class's."""
    event = events[0]
    broken = [
        {key: value for key, value in event.items() if key != "src_endpoint"},
        {**event, "actor_name": "alice"},
        {**event, "time": event["metadata"]["original_time"]},
        {**event, "type_uid": 600399},
        {**event, "src_endpoint": {}},
    ]
    status, said = judged([*broken, event])
    assert status == 1
    assert {line.split(":")[0] for line in said.splitlines()} == {
        *(f"line {number}" for number in range(1, 6)),
        "1 events are right",
    }


def test_nothing_of_a_record_is_lost(service: Service, events: list[dict[str, Any]]) -> None:
    """The event holds the record's own text, and each attribute where the mapping says, or under `unmapped`."""
    # Which member the source is in says its type; what an action and an outcome become is another word.
    reworded = {names.AUDIT_OUTCOME, names.AUDIT_ACTION, names.AUDIT_SOURCE_TYPE}
    # A worker that acts for somebody is an application: no type of a user.
    unmapped = {names.AUDIT_ACTOR_TYPE}
    for event, text in zip(events, bodies(service), strict=True):
        assert event["raw_data"] == text
        attributes = json.loads(text)["attributes"]
        assert {key: value for key, value in event["unmapped"].items() if key in attributes} == {
            key: value
            for key, value in attributes.items()
            if key not in MAPPED or (key in unmapped and names.AUDITRACE_INITIATOR_ID in attributes)
        }
        mapped = json.dumps({key: value for key, value in event.items() if key not in {"raw_data", "unmapped"}})
        for key in (MAPPED & attributes.keys()) - reworded - unmapped:
            assert json.dumps(str(attributes[key]))[1:-1] in mapped, key


def test_events_say_who_did_what_with_which_outcome(events: list[dict[str, Any]]) -> None:
    """A refused request of a person, and what a worker did for one, in the words of OCSF."""
    (refused,) = [event for event in events if event["status_code"] == "rejected"]
    assert refused["api"]["operation"] == "job.create"
    assert refused["actor"]["user"] == {"uid": "olga", "type": "user", "type_id": 1}
    assert (refused["activity_id"], refused["status_id"], refused["severity_id"]) == (1, 2, 2)
    assert refused["src_endpoint"] == {"ip": "127.0.0.1"}
    assert refused["http_request"]["http_method"] == "POST"
    assert "there is no template" in refused["status_detail"]
    by_worker = [event for event in events if event["api"]["operation"] == "job.status.transition"]
    assert {event["actor"]["user"]["uid"] for event in by_worker} == {"olga"}
    assert {event["actor"]["user"]["type_id"] for event in by_worker} == {1}
    workers = {json.loads(event["raw_data"])["attributes"][names.AUDIT_ACTOR_ID] for event in by_worker}
    assert {event["actor"]["app_uid"] for event in by_worker} == workers
    assert all(" for olga: " in event["message"] for event in by_worker)
    assert {event["src_endpoint"]["svc_name"] for event in by_worker} == {"auditrace"}
    assert {event["severity_id"] for event in by_worker if event["status_code"] == "error"} == {3}
    assert all(event["trace"]["uid"] == json.loads(event["raw_data"])["trace_id"] for event in events)


def test_the_documented_mapping_names_everything_that_is_mapped() -> None:
    """Each attribute that has a place of its own, and each member of the body, stands in the table."""
    document = (ROOT / "docs" / "correlation.md").read_text()
    table = document.split("## Other formats")[1]
    first = " ".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| "))
    members = {"timestamp", "observed_timestamp", "event_name", "trace_id", "span_id", "resource"}
    assert MAPPED | members <= set(re.findall(r"`([^`]+)`", first))
