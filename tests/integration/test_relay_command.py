"""What `auditrace relay` does for an operator, as a process of its own against a real OTLP server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry import names
from tests.support.otlp_messages import plain_attributes
from tests.support.otlp_sink import Answer, OtlpSink, Request
from tests.support.poll_until import poll_until
from tests.support.processes import start_process
from tests.support.service import Service


class Backend:
    """A sink that refuses one record, alone, for as long as a test says so."""

    def __init__(self) -> None:
        self.refuses = True
        self.sink = OtlpSink(self._answer)

    def _answer(self, request: Request) -> Answer:
        bodies = str(request.message)
        return Answer(400) if self.refuses and "unwanted" in bodies else Answer()

    def ids(self) -> list[str]:
        """Return the ids of the records that were taken, in the order of their arrival."""
        return [
            str(plain_attributes(each.record.attributes)[names.AUDIT_RECORD_ID]) for each in self.sink.log_records()
        ]


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    """A sink over which a service without a relay of its own has committed records, one of them unwanted."""
    return Backend()


@pytest.fixture
def service(tmp_path: Path, backend: Backend) -> Service:
    """A ledger that was written and not delivered."""
    with backend.sink:
        pass
    service = Service(tmp_path, arguments=["--no-relay"])
    with service:
        client = service.client()
        for name in ("first", "unwanted", "last"):
            client.create("greet", name=name)
    return service


def test_records_are_delivered_parked_retried_and_replayed_on_request(service: Service, backend: Backend) -> None:
    """`--once` delivers all but the refused record and parks it; `--retry-parked` and `--replay-from` send again."""
    ((stream_id, parked_number, parked_id),) = service.rows(
        "SELECT stream_id, number, record_id FROM audit_records WHERE body LIKE '%unwanted%'"
    )
    with backend.sink:
        service.environment["AUDITRACE_AUDIT_ENDPOINT"] = f"{backend.sink.http_endpoint}/v1/logs"
        service.command("relay", "--once")
        # With those of the stream in which the relay has put its configuration on record.
        rows = service.rows("SELECT record_id, stream_id FROM audit_records ORDER BY position")
        ids = [record_id for record_id, _ in rows]
        of_service = [record_id for record_id, of in rows if of == stream_id and record_id != parked_id]
        # A neighbour is sent a second time, to find out that it is the record and not the sink.
        arrived = list(dict.fromkeys(backend.ids()))
        assert [each for each in arrived if each in of_service] == of_service
        assert set(arrived) == set(ids) - {parked_id}

        refused = service.command("relay", "--retry-parked", "--json", check=False)
        assert refused.returncode == 1
        assert json.loads(refused.stdout)["refused"][0]["record_id"] == parked_id

        backend.refuses = False
        assert "1 accepted, 0 refused" in service.command("relay", "--retry-parked").stdout
        assert set(backend.ids()) == set(ids)
        assert service.command("relay", "--retry-parked").stdout == "no record is parked\n"

        before = len(backend.ids())
        done = json.loads(service.command("relay", "--replay-from", f"{stream_id}:{parked_number}", "--json").stdout)
        assert done["accepted"] == len(backend.ids()) - before > 0
        assert set(backend.ids()) == set(ids)


def test_a_sink_that_is_away_leaves_the_records_where_they_are(service: Service) -> None:
    """`--once` without a sink says so by its exit status, and parks nothing."""
    service.environment |= {"AUDITRACE_AUDIT_ENDPOINT": "http://127.0.0.1:1/v1/logs", "AUDITRACE_SHUTDOWN_GRACE": "1s"}
    ((stream_id, in_stream),) = service.rows("SELECT stream_id, number FROM audit_streams")
    done = service.command("relay", "--once", check=False)
    # With those that the relay makes itself, of its configuration.
    ((count,),) = service.rows("SELECT count(*) FROM audit_records")
    assert done.returncode == 1
    assert "0 records were delivered to http://127.0.0.1:1/v1/logs" in done.stdout
    assert f"auditrace: {count} records are left, after 0 were delivered to http://127.0.0.1:1/v1/logs" in done.stderr
    assert "refused" in done.stderr
    assert f"stream {stream_id}: delivered up to 0 of {in_stream}" in done.stderr
    assert "Run the same command again to go on" in done.stderr
    document = json.loads(service.command("relay", "--once", "--json", check=False).stdout)
    assert (document["delivered"], document["left"]) == (0, count)
    assert service.rows("SELECT count(*) FROM parked_records") == [(0,)]


def test_a_stop_ends_it_with_what_is_left(service: Service, backend: Backend) -> None:
    """SIGTERM while the sink says nothing: it ends with the request under way, and says that it was stopped."""
    backend.sink.script = lambda _: Answer(hang=True)
    with backend.sink:
        service.environment |= {
            "AUDITRACE_AUDIT_ENDPOINT": f"{backend.sink.http_endpoint}/v1/logs",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        }
        process = start_process(
            [sys.executable, "-m", "service", "relay", "--once"],
            env=service.environment,
            cwd=service.root,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            poll_until(lambda: backend.sink.request_count > 0, "a request")
            process.terminate()
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "are left, after 0 were delivered" in said
    assert "a stop was asked for" in said


def test_an_outage_of_a_replay_says_how_to_go_on(service: Service, backend: Backend) -> None:
    """On standard error, as a command to copy."""
    backend.refuses = False
    with backend.sink:
        service.environment["AUDITRACE_AUDIT_ENDPOINT"] = f"{backend.sink.http_endpoint}/v1/logs"
        service.command("relay", "--once")
    (stream_id,), *_ = service.rows("SELECT stream_id FROM audit_streams ORDER BY opened_ns")
    done = service.command("relay", "--replay-from", f"{stream_id}:2", check=False)
    assert done.returncode == 1
    assert f"Go on with `auditrace relay --replay-from {stream_id}:2`" in done.stderr


@pytest.mark.parametrize("place", ["nowhere", "a:0", ":1", "a:b"])
def test_a_place_that_is_none_is_refused(service: Service, place: str) -> None:
    """A mistyped place is exit status 2 with what it should look like."""
    done = service.command("relay", "--replay-from", place, check=False)
    assert done.returncode == 2
    assert "STREAM:NUMBER" in done.stderr
