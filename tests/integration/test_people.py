"""Commands that change the ledger or its keys record the person, whatever variables say, and the service itself."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.bootstrap.databases import database_of
from telemetry.audit.verify import verify
from tests.support.keys import public_key
from tests.support.otlp_sink import Answer, OtlpSink, Request
from tests.support.people import LOGIN_UID, id_of, of_people, run_as, said_of
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.volumes import read_only

NOBODY, NAMELESS = 65534, 54321
SYSTEM = {"audit.actor.id": "auditrace", "audit.actor.type": "system", "auditrace.actor.issuer": "service"}


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service that has run and ended."""
    service = Service(tmp_path / "service")
    with service:
        service.client().create("greet", name="you")
    return service


def _attributes(service: Service, event_name: str) -> list[dict[str, Any]]:
    sql = "SELECT body FROM audit_records WHERE event_name = ? ORDER BY position"
    return [json.loads(body)["attributes"] for (body,) in service.rows(sql, event_name)]


def _done(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def _states(attributes: dict[str, Any]) -> tuple[Any, ...]:
    names = ("audit.action", "audit.target.type", "audit.target.id", "auditrace.result", "auditrace.source")
    return tuple(attributes[name] for name in names)


def _verdict(service: Service) -> str:
    key = public_key(service.folder / "keys" / "signing.pem")
    report = verify(database_of(f"sqlite:///{service.database}").records(), public_keys=[key])
    assert report.findings == ()
    return report.verdict


@pytest.mark.parametrize("uid", [NOBODY, NAMELESS])
def test_keys_are_made_and_revoked_by_a_person(service: Service, uid: int) -> None:
    """By the user of the kernel on the host of the kernel; the first key is made by the service, and says so."""
    create, revoke = ("keys", "create", "ann", "--role", "viewer"), ("keys", "revoke", "ann")
    for arguments in (create, revoke, revoke):
        _done(run_as(uid, service, *arguments))
    first, created = _attributes(service, "key.create")
    assert of_people(first) == SYSTEM
    assert of_people(created) == said_of(uid, *create)
    assert _states(created) == ("CREATE", "key", "ann", "success", "cli")
    revoked, again = _attributes(service, "key.revoke")
    assert of_people(revoked) == of_people(again) == said_of(uid, *revoke)
    assert (_states(revoked), _states(again)) == (
        ("DELETE", "key", "ann", "success", "cli"),
        ("DELETE", "key", "ann", "noop", "cli"),
    )


def test_who_logged_in_is_kept_behind_another_user(service: Service) -> None:
    """The kernel keeps the login uid through `su` and `sudo`; it is stated when it names another user."""
    # Where the kernel lets nobody set it, the command has the one of the test run.
    login = ["sh", "-c", f'echo 1 2>/dev/null > {LOGIN_UID}; exec "$@"', "sh"]
    uid = int(subprocess.run([*login, "cat", str(LOGIN_UID)], capture_output=True, check=True).stdout)
    create = ("keys", "create", "ann", "--role", "viewer")
    _done(run_as(NOBODY, service, *create, login=login))
    assert of_people(_attributes(service, "key.create")[-1]) == said_of(NOBODY, *create, login_uid=uid)


def test_a_whole_key_given_for_a_name_reaches_no_record(service: Service) -> None:
    """It is refused before anything is recorded, because a record is never removed."""
    before = service.rows("SELECT count(*) FROM audit_records")
    for arguments in (("create", "--role", "viewer"), ("revoke",)):
        action, *more = arguments
        refused = service.command("keys", action, "atk_0123abcd_s3cret", *more, check=False)
        assert refused.returncode == 2
        assert "NAME is a whole key" in refused.stderr
        assert "s3cret" not in refused.stderr
    assert service.rows("SELECT count(*) FROM audit_records") == before


def test_a_rotation_and_a_restore_name_the_person(service: Service) -> None:
    """The signed record of a rotation, and that of a restore; the checkpoints and streams stay acts of the service."""
    old = public_key(service.folder / "keys" / "signing.pem")
    _done(run_as(NOBODY, service, "keys", "rotate", "--json"))
    _done(run_as(NOBODY, service, "migrate", "--after-restore"))
    (rotated,), (restored,) = _attributes(service, "audit.key.rotate"), _attributes(service, "audit.restore")
    assert of_people(rotated) == said_of(NOBODY, "keys", "rotate", "--json")
    assert (rotated["audit.action"], rotated["audit.target.type"]) == ("UPDATE", "key")
    assert set(rotated["auditrace.changes"]) == {"public_key", "first_checkpoint"}
    assert of_people(restored) == said_of(NOBODY, "migrate", "--after-restore")
    assert _states(restored) == ("UPDATE", "ledger", "auditrace", "success", "cli")
    assert set(restored["auditrace.changes"]) == {"checkpoint", "streams"}
    for event_name in ("audit.checkpoint", "audit.stream.open", "audit.stream.close"):
        assert all(of_people(each) == SYSTEM for each in _attributes(service, event_name))
    report = verify(database_of(f"sqlite:///{service.database}").records(), public_keys=[old])
    assert (report.verdict, report.findings) == ("intact", ())


def test_a_migration_alone_leaves_no_record(service: Service) -> None:
    """Steps of the schema change no record and no key, and the role that migrates may lack the ledger secret."""
    before = service.rows("SELECT count(*) FROM audit_records")
    (service.folder / "keys" / "ledger.secret").unlink()
    assert "up to date" in _done(run_as(NOBODY, service, "migrate"))
    assert service.rows("SELECT count(*) FROM audit_records") == before


class Backend:
    """A sink that refuses one record alone until told otherwise, and keeps what the ledger says at each request."""

    def __init__(self, service: Service) -> None:
        self.refuses = True
        self.recorded: list[int] = []
        self.service = service
        self.sink = OtlpSink(self._answer)

    def _answer(self, request: Request) -> Answer:
        self.recorded.append(len(_attributes(self.service, "audit.redeliver")))
        return Answer(400) if self.refuses and "unwanted" in str(request.message) else Answer()


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    """A sink that has everything but one parked record, of a service that has ended."""
    service = Service(tmp_path / "delivering", arguments=["--no-relay"])
    with service:
        for name in ("first", "unwanted", "last"):
            service.client().create("greet", name=name)
    backend = Backend(service)
    with backend.sink:
        service.environment |= {
            "AUDITRACE_AUDIT_ENDPOINT": f"{backend.sink.http_endpoint}/v1/logs",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-key=s3cret",
        }
        service.command("relay", "--once")
        backend.recorded.clear()
        backend.refuses = False
        yield backend


def test_what_is_sent_again_is_recorded_before(backend: Backend) -> None:
    """Who sends how many records again, from where, to which sink: committed before the sink gets the first one."""
    service = backend.service
    streams = service.rows("SELECT stream_id, number FROM audit_streams ORDER BY opened_ns")
    stream_id, last = streams[0]
    runs = {
        "parked": ("relay", "--retry-parked"),
        "stream": ("relay", "--replay-from", f"{stream_id}:2"),
        "all": ("relay", "--replay-all"),
    }
    for count, arguments in enumerate(runs.values(), start=1):
        _done(run_as(NOBODY, service, *arguments))
        assert backend.recorded
        assert set(backend.recorded) == {count}
        backend.recorded.clear()
    found = _attributes(service, "audit.redeliver")
    sink = {"to": f"{backend.sink.http_endpoint}/v1/logs"}
    assert [each["auditrace.changes"] for each in found] == [
        {"selection": {"to": "parked"}, "records": {"to": 1}, "sink": sink},
        {"selection": {"to": "stream"}, "records": {"to": last - 1}, "sink": sink, "from": {"to": f"{stream_id}:2"}},
        {"selection": {"to": "all"}, "records": {"to": sum(number for _, number in streams)}, "sink": sink},
    ]
    for each, arguments in zip(found, runs.values(), strict=True):
        assert of_people(each) == said_of(NOBODY, *arguments)
        assert _states(each) == ("UPDATE", "ledger", "auditrace", "success", "cli")
    assert "s3cret" not in str(service.rows("SELECT body FROM audit_records"))
    assert _verdict(service) == "intact"


def test_where_nothing_is_to_be_sent_the_record_is_a_noop(backend: Backend) -> None:
    """And nothing is sent; a stream that does not exist is refused without a record."""
    service = backend.service
    stream_id, *_ = service.rows("SELECT stream_id FROM audit_streams ORDER BY opened_ns")[0]
    service.command("relay", "--retry-parked")
    backend.recorded.clear()
    service.command("relay", "--retry-parked")
    service.command("relay", "--replay-from", f"{stream_id}:1000")
    refused = service.command("relay", "--replay-from", "elsewhere:1", check=False)
    assert "there is no stream elsewhere" in refused.stderr
    assert [each["auditrace.result"] for each in _attributes(service, "audit.redeliver")] == ["success", "noop", "noop"]
    assert backend.recorded == []


@pytest.mark.parametrize("arguments", [["--retry-parked"], ["--replay-all"], ["--replay-from", "any:1"]])
def test_what_cannot_be_recorded_is_not_sent_again(backend: Backend, arguments: Sequence[str]) -> None:
    """Without the ledger secret: exit status 2 with the file that lacks, and nothing reaches the sink."""
    service = backend.service
    (service.folder / "keys" / "ledger.secret").rename(service.folder / "elsewhere")
    refused = service.command("relay", *arguments, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "ledger.secret" in refused.stderr
    assert backend.recorded == []


def test_to_send_again_needs_no_signing_key(backend: Backend) -> None:
    """The record is not signed; the next checkpoint of the service covers it."""
    service = backend.service
    (service.folder / "keys" / "signing.pem").rename(service.folder / "signing.pem")
    assert "1 accepted" in service.command("relay", "--retry-parked").stdout
    (service.folder / "signing.pem").rename(service.folder / "keys" / "signing.pem")
    with service:
        pass
    assert _verdict(service) == "intact"
    sql = "SELECT count(*) FROM audit_streams WHERE stream_id NOT IN (SELECT stream_id FROM audit_anchors)"
    assert service.rows(sql) == [(0,)]


def _of_postgres(url: str, event_name: str) -> list[dict[str, Any]]:
    with psycopg.connect(url) as session:
        rows = session.execute("SELECT body FROM audit_records WHERE event_name = %s", [event_name]).fetchall()
    return [json.loads(body)["attributes"] for (body,) in rows]


def test_a_copy_is_told_by_both_ledgers(service: Service, postgres_server: PostgresServer) -> None:
    """The record is committed to the file before, and copied with it: both hold the same one, without a password."""
    url = postgres_server.create_database()
    given = f"{url}&password=s3cret"
    arguments = ("copy", "--from", f"sqlite:///{service.database}", "--to", given)
    # As the user of the test run, because only that one is found to be allowed to write the file.
    _done(run_as(os.getuid(), service, *arguments))
    (of_file,), (of_target,) = _attributes(service, "audit.copy"), _of_postgres(url, "audit.copy")
    assert of_file == of_target
    assert of_people(of_file) == said_of(os.getuid(), *arguments[:-1], f"{url.partition('?')[0]}?***")
    assert _states(of_file) == ("EXPORT", "ledger", "auditrace", "success", "cli")
    places = {"from": str(service.database), "to": database_of(url).place}
    assert of_file["auditrace.changes"] == {"database": places}
    assert _verdict(service) == "intact"
    assert service.command("doctor", "--ledger").returncode == 0
    service.environment["AUDITRACE_DATABASE"] = url
    with service:
        service.client().create("greet", name="again")
    assert service.command("doctor", "--ledger", check=False).stdout.count("s3cret") == 0
    report = verify(database_of(url).records(), public_keys=[public_key(service.folder / "keys" / "signing.pem")])
    assert (report.verdict, report.findings) == ("intact", ())
    postgres_server.drop_database(url)


def test_a_copy_that_fails_is_told_by_its_source(service: Service, postgres_server: PostgresServer) -> None:
    """As one that was begun, and one that failed with its reason; a target that is not empty leaves no record."""
    url = postgres_server.create_database()
    with psycopg.connect(url) as session:
        session.execute("DROP TRIGGER audit_records_are_not_changed ON audit_records")
    copy = ("copy", "--from", f"sqlite:///{service.database}", "--to", url)
    assert service.command(*copy, check=False).returncode == 2
    begun, failed = _attributes(service, "audit.copy")
    assert (begun["auditrace.result"], failed["auditrace.result"]) == ("success", "error")
    assert "nothing was copied" in failed["auditrace.reason"]
    assert failed["error.type"] == "broken_ledger"
    assert _of_postgres(url, "audit.copy") == []
    postgres_server.drop_database(url)
    target = postgres_server.create_database()
    service.command(*copy[:-1], target)
    assert "holds a ledger already" in service.command(*copy[:-1], target, check=False).stderr
    assert len(_attributes(service, "audit.copy")) == 3
    postgres_server.drop_database(target)


def test_a_copy_from_a_read_only_medium_is_told_by_its_target(
    service: Service, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    """The file cannot be changed; the target has the record behind everything that was copied."""
    url = postgres_server.create_database()
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    shutil.copy(service.database, evidence)
    with read_only(evidence, tmp_path / "medium") as medium:
        arguments = ("copy", "--from", f"sqlite:///{medium}/auditrace.db", "--to", url)
        _done(run_as(NOBODY, service, *arguments))
    (record,) = _of_postgres(url, "audit.copy")
    assert record["audit.actor.id"] == id_of(NOBODY)
    assert record["auditrace.changes"]["database"]["from"] == f"{medium}/auditrace.db"
    key = public_key(service.folder / "keys" / "signing.pem")
    report = verify(database_of(url).records(), public_keys=[key])
    assert (report.verdict, report.findings) == ("intact", ())
    postgres_server.drop_database(url)
