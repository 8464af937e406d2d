"""A service is turned away from its sink, weakened and reloaded, and what the old sink and the trail say of it."""

import ctypes
import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from telemetry import names
from tests.support.archive import archived
from tests.support.collector import ROOT, Collector
from tests.support.jobs import Record
from tests.support.otlp_sink import Answer, OtlpSink, Request
from tests.support.poll_until import poll_until
from tests.support.postgres import PostgresServer, as_service
from tests.support.processes import Process, heeds, start_process
from tests.support.service import STOP_S, TEMPLATES, Service

HOST = os.uname().nodename
TOKEN = "hunter2"
WEAKENED = TEMPLATES.replace("requires_confirmation = true", "requires_confirmation = false").replace(
    "distinct_confirmer = true", "distinct_confirmer = false"
)


def _in_ledger(service: Service) -> Sequence[Record]:
    rows = service.rows("SELECT body FROM audit_records WHERE event_name = 'service.configure' ORDER BY position")
    return [Record(body) for (body,) in rows]


def _in_archive(folder: Path) -> Sequence[Record]:
    found = [Record(each.record.body.string_value) for each in archived(folder)]
    return list({one.record_id: one for one in found if one.event_name == "service.configure"}.values())


def _in_sink(sink: OtlpSink) -> Sequence[Record]:
    found = [Record(each.record.body.string_value) for each in sink.log_records()]
    return list({one.record_id: one for one in found if one.event_name == "service.configure"}.values())


def _told(records: Sequence[Record]) -> Sequence[tuple[str, Mapping[str, Any]]]:
    """Return target and changes of each record, without the hash of the whole configuration and the texts."""
    return [
        (
            one.attributes[names.AUDIT_TARGET_ID],
            {name: value for name, value in one.changes.items() if name not in {"configuration", "text"}},
        )
        for one in records
    ]


def _weaken(service: Service) -> None:
    (service.folder / "jobs.toml").write_text(WEAKENED, encoding="utf-8")


def _log(service: Service) -> str:
    return service.log.read_text(encoding="utf-8")


def _requires_confirmation(service: Service) -> bool:
    templates = service.client().get("/v1/templates")["templates"]
    return bool(next(one for one in templates if one["name"] == "approved")["requires_confirmation"])


def test_the_old_archive_says_who_moved_the_sink_and_weakened_a_template(tmp_path: Path) -> None:
    """The service is killed, its sink moved, a template weakened: the old archive has both, and verifies."""
    service = Service(tmp_path)
    service.start()
    first = len(_in_ledger(service))
    service.client().create("greet", name="you")
    service.kill()
    moved = tmp_path / "elsewhere" / "audit.jsonl"
    service.environment["AUDITRACE_AUDIT_ARCHIVE"] = str(moved)
    service.environment["AUDITRACE_CHECKPOINT_INTERVAL"] = "24h"
    _weaken(service)
    with service:
        pass
    template, settings = _in_archive(service.archive.parent)[first:]
    assert settings.attributes[names.AUDIT_TARGET_ID] == HOST
    assert {name: value for name, value in settings.changes.items() if name != "configuration"} == {
        "checkpoint_interval_ms": {"from": 60_000, "to": 86_400_000},
        "sink.archive": {"from": str(service.archive), "to": str(moved)},
    }
    assert template.attributes[names.AUDIT_TARGET_ID] == "approved"
    assert json.loads(template.changes["text"]["to"])["requires_confirmation"] is False
    # The records that the killed process had not delivered are there too.
    events = [Record(each.record.body.string_value).event_name for each in archived(service.archive.parent)]
    assert "job.create" in events
    assert service.verify().verdict == "intact"
    assert _told(_in_archive(moved.parent)) == _told([template, settings])
    assert service.verify(service.archive.parent, moved.parent).verdict == "intact"


def test_the_old_collector_says_that_records_go_elsewhere(tmp_path: Path) -> None:
    """The collector that is left has the record, over OTLP, when the service begins to work."""
    with Collector(tmp_path / "collector") as collector:
        service = Service(tmp_path / "service", {"AUDITRACE_AUDIT_ENDPOINT": collector.audit_endpoint})
        with service:
            pass
        del service.environment["AUDITRACE_AUDIT_ENDPOINT"]
        with service:
            found = _in_archive(collector.archive_dir)
            assert found[-1].changes["sink.endpoint"] == {"from": collector.audit_endpoint}
            assert found[-1].changes["sink.archive"] == {"to": str(service.archive)}
        assert _in_archive(service.archive.parent)[-1].record_id == found[-1].record_id


def test_credentials_go_only_to_the_sink_that_had_them(tmp_path: Path) -> None:
    """The old sink gets its own headers again, and not the new ones; the record has neither of them."""
    seen: dict[str, list[str | None]] = {"old": [], "new": []}

    def noting(name: str) -> Callable[[Request], Answer]:
        def note(request: Request) -> Answer:
            seen[name].append(request.headers.get("authorization"))
            return Answer()

        return note

    with OtlpSink(noting("old")) as old, OtlpSink(noting("new")) as new:
        service = Service(
            tmp_path,
            {
                "AUDITRACE_AUDIT_ENDPOINT": f"{old.http_endpoint}/v1/logs",
                "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={TOKEN}",
            },
        )
        with service:
            pass
        service.environment["AUDITRACE_AUDIT_ENDPOINT"] = f"{new.http_endpoint}/v1/logs"
        with service:
            assert _in_sink(old)[-1].changes["sink.endpoint"]["to"] == f"{new.http_endpoint}/v1/logs"
            assert set(seen["old"]) == {TOKEN}
        service.environment["AUDITRACE_AUDIT_ENDPOINT"] = f"{old.http_endpoint}/v1/logs"
        service.environment["OTEL_EXPORTER_OTLP_HEADERS"] = f"authorization={TOKEN}3"
        before = len(seen["new"])
        with service:
            pass
        assert set(seen["new"][before:]) == {None}
        records = _in_ledger(service)
    bodies = b"".join(path.read_bytes() for path in (service.database, *tmp_path.glob("auditrace.db-wal")))
    assert TOKEN.encode() not in bodies
    changed = records[-1].changes["sink.headers"]
    assert all(value.startswith("hmac-sha256:") for value in changed.values())
    assert changed["from"] != changed["to"]


def test_an_old_sink_that_does_not_answer_holds_up_no_start_for_longer_than_the_grace(tmp_path: Path) -> None:
    """The start goes on, a line says so, the new sink gets the record, and the next start does not ask again."""
    with OtlpSink() as old:
        endpoint = f"{old.http_endpoint}/v1/logs"
        service = Service(tmp_path, {"AUDITRACE_AUDIT_ENDPOINT": endpoint, "AUDITRACE_SHUTDOWN_GRACE": "1s"})
        with service:
            pass
    del service.environment["AUDITRACE_AUDIT_ENDPOINT"]
    with service:
        poll_until(lambda: service.archive.exists() and _in_archive(service.archive.parent), "the new sink has it")
    assert f"the sink before did not get the records of a changed configuration: {endpoint}" in _log(service)
    with service:
        pass
    assert _log(service).count("the sink before did not get") == 1
    ((answer,),) = service.rows("SELECT answer FROM configuration_offers")
    assert answer.startswith(endpoint)


def test_a_restart_without_a_change_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither `serve` nor `work` nor `relay` makes a record when it starts again, and commands never make one."""
    service = Service(tmp_path)
    for number in range(2):
        with service:
            for role in ("work", "relay"):
                with _running(service, role):
                    pass
            service.key(f"key-{number}", "viewer")
        assert len([one for one in _in_ledger(service) if one.attributes[names.AUDIT_TARGET_TYPE] == "service"]) == 3


def _sources(service: Service) -> set[str]:
    return {one.attributes[names.AUDITRACE_SOURCE] for one in _in_ledger(service)}


@contextmanager
def _running(service: Service, role: str) -> Iterator[Process]:
    with service.log.open("ab") as log:
        process = start_process(
            ["setsid", sys.executable, "-m", "service", role],
            env=service.environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    source = "worker" if role == "work" else role
    with process:
        poll_until(lambda: heeds(process, signal.SIGTERM), "its start")
        poll_until(lambda: source in _sources(service), "its configuration")
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_reloads_the_templates_and_names_who_sent_it(tmp_path: Path, number: signal.Signals) -> None:
    """Without a terminal; the new templates apply once the record of them is delivered."""
    with Service(tmp_path) as service:
        before = len(_in_ledger(service))
        assert _requires_confirmation(service)
        _weaken(service)
        assert service.process is not None
        service.process.send_signal(number)
        poll_until(lambda: not _requires_confirmation(service), "the new templates")
        template, whole = _in_ledger(service)[before:]
        assert set(whole.changes) == {"configuration"}
        assert template.attributes[names.AUDIT_TARGET_ID] == "approved"
        person = f"os:{pwd.getpwuid(os.getuid()).pw_name}@{HOST}"
        for record in (template, whole):
            assert record.attributes[names.AUDIT_ACTOR_ID] == person
            assert record.attributes[names.AUDIT_ACTOR_TYPE] == "user"
            assert record.attributes[names.AUDITRACE_ACTOR_ISSUER] == "os"
        assert whole.record_id in {one.record_id for one in _in_archive(service.archive.parent)}
        service.process.send_signal(number)
        poll_until(lambda: "nothing is new" in _log(service), "the second reload")
        assert len(_in_ledger(service)) == before + 2


def test_nobody_reloads_in_the_name_of_another(tmp_path: Path) -> None:
    """A signal whose sender states who it is, and not the kernel, is ignored with a line; one by kill works."""
    with Service(tmp_path) as service:
        before = len(_in_ledger(service))
        _weaken(service)
        assert service.process is not None
        assert ctypes.CDLL(None).sigqueue(service.process.pid, signal.SIGUSR1, ctypes.c_void_p(0)) == 0
        poll_until(lambda: "the kernel does not know who sent it" in _log(service), "the line")
        assert _requires_confirmation(service)
        assert len(_in_ledger(service)) == before
        service.process.send_signal(signal.SIGUSR1)
        poll_until(lambda: not _requires_confirmation(service), "the new templates")


def test_a_broken_file_keeps_the_old_templates_and_says_what_is_wrong(tmp_path: Path) -> None:
    """One line with every problem; no record, and the next reload of a repaired file works."""
    with Service(tmp_path) as service:
        before = len(_in_ledger(service))
        broken = WEAKENED.replace("[templates.fail]", "[templates.fail]\nwrong = 1").replace('["env"]', "[]")
        (service.folder / "jobs.toml").write_text(broken, encoding="utf-8")
        assert service.process is not None
        service.process.send_signal(signal.SIGHUP)
        poll_until(lambda: "the old templates stay in force" in _log(service), "the line")
        (line,) = [line for line in _log(service).splitlines() if "the old templates stay in force" in line]
        assert "templates.fail.wrong" in line
        assert "templates.environment.command" in line
        assert _requires_confirmation(service)
        assert len(_in_ledger(service)) == before
        _weaken(service)
        service.process.send_signal(signal.SIGHUP)
        poll_until(lambda: not _requires_confirmation(service), "the new templates")


def test_a_weaker_template_applies_only_after_its_record(tmp_path: Path) -> None:
    """While the ledger cannot be written nothing is reloaded, and the line says so; the next request works."""
    with Service(tmp_path) as service:
        _weaken(service)
        assert service.process is not None
        away = service.database.with_suffix(".away")
        service.database.rename(away)
        service.process.send_signal(signal.SIGUSR1)
        poll_until(lambda: "because it cannot be recorded" in _log(service), "the line")
        away.rename(service.database)
        assert _requires_confirmation(service)
        service.process.send_signal(signal.SIGUSR1)
        poll_until(lambda: not _requires_confirmation(service), "the new templates")
        assert len(_in_ledger(service)) > 0


def test_a_sink_that_is_away_delays_a_reload_by_the_grace_only(tmp_path: Path) -> None:
    """The record is committed, the old templates decide meanwhile, and then the new ones apply."""
    with OtlpSink() as sink:
        settings = {"AUDITRACE_AUDIT_ENDPOINT": f"{sink.http_endpoint}/v1/logs", "AUDITRACE_SHUTDOWN_GRACE": "2s"}
        service = Service(tmp_path, settings)
        service.start()
        sink.script = lambda _: Answer(status=503)
        _weaken(service)
        assert service.process is not None
        before = len(_in_ledger(service))
        service.process.send_signal(signal.SIGHUP)
        poll_until(lambda: not _requires_confirmation(service), "the new templates")
        assert len(_in_ledger(service)) == before + 2
        assert "of a changed configuration applies, and is not delivered yet" in _log(service)
        sink.script = None
        assert service.stop() == 0


@pytest.mark.parametrize("role", ["work", "relay"])
def test_a_process_without_templates_outlives_a_request_to_reload(tmp_path: Path, role: str) -> None:
    """It says that it has nothing to reload, and goes on."""
    with Service(tmp_path) as service, _running(service, role) as process:
        process.send_signal(signal.SIGHUP)
        poll_until(lambda: "this process has no templates" in _log(service), "the line")
        assert process.poll() is None


def test_a_terminal_is_told_apart_from_a_request_to_reload(tmp_path: Path) -> None:
    """With a controlling terminal SIGHUP stops the process, and SIGUSR1 reloads."""
    service = Service(tmp_path)
    master, service.terminal = os.openpty()
    with os.fdopen(master), os.fdopen(service.terminal):
        service.start()
        _weaken(service)
        assert service.process is not None
        service.process.send_signal(signal.SIGUSR1)
        poll_until(lambda: not _requires_confirmation(service), "the new templates")
        service.process.send_signal(signal.SIGHUP)
        assert service.process.wait(STOP_S) == 0
    service.process = None
    assert service.rows("SELECT count(*) FROM audit_streams WHERE closed = 0") == [(0,)]


def test_a_relay_without_the_ledger_secret_does_not_take_records_elsewhere(tmp_path: Path) -> None:
    """It cannot put its sink on record, so it does not start."""
    with Service(tmp_path, arguments=["--no-relay"]) as service:
        service.environment["AUDITRACE_LEDGER_SECRET"] = str(tmp_path / "none")
        done = service.command("relay", "--once", check=False)
        assert done.returncode == 2
        assert str(tmp_path / "none") in done.stderr
        service.environment["AUDITRACE_LEDGER_SECRET"] = str(tmp_path / "keys" / "ledger.secret")
    assert not service.archive.exists()


def test_processes_of_one_deployment_on_postgresql_record_a_configuration_once(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    """Two services run with the same settings, and then with others; each of the two makes one record."""
    url = postgres_server.create_database()
    with OtlpSink() as sink:
        settings = {"AUDITRACE_DATABASE": as_service(url), "AUDITRACE_AUDIT_ENDPOINT": f"{sink.http_endpoint}/v1/logs"}
        first, second = (Service(tmp_path, settings) for _ in range(2))
        for interval in ("60s", "30s"):
            for service in (first, second):
                service.environment["AUDITRACE_CHECKPOINT_INTERVAL"] = interval
            with first, second:
                pass
        found = [one for one in _in_sink(sink) if one.attributes[names.AUDIT_TARGET_TYPE] == "service"]
        assert [one.changes.get("checkpoint_interval_ms") for one in found] == [
            {"to": 60_000},
            {"from": 60_000, "to": 30_000},
        ]
    postgres_server.drop_database(url)
