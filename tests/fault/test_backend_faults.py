"""Faults between the collector and the backend, with the real collector: records wait, and none is lost or altered."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archive import archived
from tests.support.deployment import Deployment
from tests.support.depth import IS_LONG
from tests.support.oracle import bodies_of, committed, require_conserved, require_receipts
from tests.support.otlp_sink import Answer, Request
from tests.support.poll_until import poll_until
from tests.support.volumes import small_volume

STORE = "otlp_http/audit_store"
DROPPED = "otelcol_exporter_send_failed_log_records"


class Backend:
    """How the backend answers; a test changes it while everything runs."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.refusals = 0

    def __call__(self, _request: Request) -> Answer:
        self.refusals += self.answer.status != 200
        return self.answer


@pytest.fixture
def backend() -> Backend:
    """A backend that stores everything until told otherwise."""
    return Backend()


@pytest.fixture
def deployment(tmp_path: Path, backend: Backend) -> Iterator[Deployment]:
    """Service, relay and collector before that backend."""
    with Deployment(tmp_path, script=backend) as running:
        yield running


def _dropped(deployment: Deployment) -> float:
    return deployment.collector.own_metric(DROPPED, exporter=STORE)


def _give_up(folder: Path) -> Path:
    """Return an overlay that gives up as the collector does by default: scaled, or as it is for the long form."""
    retry = "{initial_interval: 500ms, max_interval: 1s, max_elapsed_time: 2s}"
    if IS_LONG:
        retry = "{initial_interval: 5s, max_interval: 30s, max_elapsed_time: 300s}"
    overlay = folder / "give-up.yaml"
    overlay.write_text(f"exporters: {{{STORE}: {{retry_on_failure: {retry}}}}}\n")
    return overlay


def test_an_outage_longer_than_the_default_give_up_loses_nothing(tmp_path: Path) -> None:
    """With the shipped settings all records wait for the backend; beside it, a control with the defaults loses some."""
    answers = Backend(), Backend()
    shipped = Deployment(tmp_path / "shipped", script=answers[0])
    control = Deployment(tmp_path / "control", script=answers[1], overlays=[_give_up(tmp_path)])
    with shipped, control:
        for backend in answers:
            backend.answer = Answer(503)
        with shipped.load(2) as load, control.load(2):
            load.wait_for(30)
        poll_until(lambda: _dropped(control) > 0, "the control to give up", 400)
        assert _dropped(shipped) == 0
        for backend in answers:
            backend.answer = Answer()
        shipped.settle()
        control.settle()
        require_receipts(shipped, load.receipts)
        require_conserved(shipped, tmp_path / "shipped")
        expected = {record_id: {body} for record_id, body in committed(control).items()}
        assert bodies_of(archived(control.collector.archive_dir)) == expected
        assert set(bodies_of(control.backend.log_records())) < set(expected)


def test_what_is_queued_outlives_the_collector(tmp_path: Path, deployment: Deployment, backend: Backend) -> None:
    """Backend down, collector ended with SIGTERM and started again: the queue on disk goes on where it was."""
    backend.answer = Answer(503)
    with deployment.load() as load:
        load.wait_for(30)
    poll_until(lambda: deployment.undelivered() == 0, "the outbox to drain into the collector")
    deployment.collector.stop()
    backend.answer = Answer()
    assert not deployment.backend.log_records()
    deployment.collector.start()
    deployment.settle()
    require_conserved(deployment, tmp_path)


def test_a_full_queue_holds_the_outbox_and_no_client(tmp_path: Path, backend: Backend) -> None:
    """A queue that is full refuses: records wait in the database, and clients go on.

    Its limit is a quarter of its volume, as it should be: it refuses before there is no room.
    """
    settings = {"AUDIT_QUEUE_BYTES": "200000"}
    with (
        small_volume(tmp_path / "collector" / "queue", 4 * 200_000),
        Deployment(
            tmp_path,
            script=backend,
            collector_settings=settings,
            service_settings={"AUDITRACE_CHECKPOINT_INTERVAL": "1h"},
        ) as deployment,
    ):
        backend.answer = Answer(503)
        with deployment.load() as load:
            poll_until(
                lambda: (
                    deployment.collector.own_metric("otelcol_exporter_enqueue_failed_log_records", exporter=STORE) > 0
                ),
                "the queue to be full",
                60,
            )
            load.wait_for(50)
            assert deployment.undelivered() > 0
            backend.answer = Answer()
        deployment.settle()
        assert "no space left" not in deployment.collector.log_path.read_text(errors="replace")
        require_receipts(deployment, load.receipts)
        require_conserved(deployment, tmp_path)


@pytest.mark.parametrize("status", [400, 401, 403, 413, 500])
def test_a_permanent_error_of_the_backend_costs_the_archive_nothing(
    tmp_path: Path, deployment: Deployment, backend: Backend, status: int
) -> None:
    """What the backend refuses for good the collector drops from its queue: the archive has it, and a metric tells."""
    backend.answer = Answer(status)
    with deployment.load() as load:
        load.wait_for(20)
    poll_until(lambda: _dropped(deployment) > 0, "the metric of dropped records")
    backend.answer = Answer()
    deployment.settle()
    expected = {record_id: {body} for record_id, body in committed(deployment).items()}
    assert bodies_of(archived(deployment.collector.archive_dir)) == expected
    report = deployment.service.verify(deployment.collector.archive_dir)
    assert (report.verdict, report.findings) == ("intact", ())
    missing = set(expected) - set(bodies_of(deployment.backend.log_records()))
    assert len(missing) == _dropped(deployment)


def test_a_partial_success_of_the_backend_shows_in_the_collector_s_log(
    tmp_path: Path, deployment: Deployment, backend: Backend
) -> None:
    """What the backend drops of a request it accepts is in the archive, and the collector says so in its log."""
    backend.answer = Answer(200, rejected=1)
    with deployment.load() as load:
        load.wait_for(20)
    poll_until(lambda: "Partial success response" in deployment.collector.log_path.read_text(), "the warning")
    deployment.settle()
    require_conserved(deployment, tmp_path)


@pytest.mark.parametrize(
    "answer",
    [Answer(429, {"Retry-After": "1"}), Answer(reset=True, stored=True), Answer(reset=True)],
    ids=["429 with Retry-After", "reset after it was stored", "reset"],
)
def test_a_backend_in_trouble_gets_every_record_in_the_end(
    tmp_path: Path, deployment: Deployment, backend: Backend, answer: Answer
) -> None:
    """Throttling and torn connections delay; what arrives twice is identical."""
    backend.answer = answer
    with deployment.load() as load:
        load.wait_for(20)
        seen = deployment.backend.request_count
        poll_until(lambda: deployment.backend.request_count > seen + 3, "the collector to try again")
        backend.answer = Answer()
    deployment.settle()
    require_conserved(deployment, tmp_path)


def test_a_backend_that_hangs_gets_every_record_when_it_is_back(
    tmp_path: Path, deployment: Deployment, backend: Backend
) -> None:
    """A backend that takes requests and says nothing, until its connections are cut, loses nothing for anybody."""
    backend.answer = Answer(hang=True)
    with deployment.load() as load:
        load.wait_for(20)
        poll_until(lambda: deployment.backend.request_count > 1, "the backend to hang")
        deployment.backend.stop()
        backend.answer = Answer()
        deployment.backend.start()
    deployment.settle()
    require_conserved(deployment, tmp_path)
