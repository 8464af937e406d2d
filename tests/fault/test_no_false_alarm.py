"""A verifier that cries wolf is switched off: whatever happens to the processes, an untouched ledger is intact."""

import sys
from pathlib import Path

from tests.support.keys import public_key
from tests.support.load import Load
from tests.support.poll_until import poll_until
from tests.support.ports import ReservedPorts
from tests.support.processes import start_process
from tests.support.service import Service
from tests.support.watch import Watch, await_verification, copies_of

ROUNDS = 3


def watch_of(service: Service) -> Watch:
    """Return a watch over archive and database of a service."""
    return Watch(
        copies_of(f"sqlite:///{service.database}", service.archive.parent),
        public_key(service.folder / "keys" / "signing.pem"),
    )


def test_a_live_ledger_never_raises_an_alarm(tmp_path: Path) -> None:
    """Under load, SIGKILLs and clean restarts, every look at the live archive and the live database says `intact`."""
    reserved = ReservedPorts(1)
    service = Service(tmp_path, {"AUDITRACE_CHECKPOINT_INTERVAL": "1s"}, ["--port", str(reserved.numbers[0])])
    service.start()
    try:
        poll_until(lambda: service.archive.exists() and service.verify().verdict == "intact", "a checkpoint")
        with watch_of(service) as watch, Load([service.url], service.admin(), 2) as load:
            for _ in range(ROUNDS):
                load.wait_for(10)
                service.kill()
                watch.once_more()
                service.start()
                load.wait_for(10)
                watch.once_more()
                assert service.stop() == 0
                watch.once_more()
                service.start()
    finally:
        service.kill()
    assert watch.alarms == []
    assert min(watch.verified.values()) >= 3 * ROUNDS


def test_the_watch_would_see_an_alarm(tmp_path: Path) -> None:
    """The test of the test: one letter changed in the archive is an alarm."""
    with Service(tmp_path, {"AUDITRACE_CHECKPOINT_INTERVAL": "1s"}) as service:
        service.client().create("greet", name="somebody")
        poll_until(lambda: service.archive.exists() and service.verify().checkpoints >= 2, "two checkpoints")
    text = service.archive.read_text()
    assert "somebody" in text
    service.archive.write_text(text.replace("somebody", "somebodx", 1))
    with watch_of(service) as watch:
        watch.once_more()
    assert {report.verdict for where, report in watch.alarms if where == "archive"} == {"broken"}


def test_a_worker_that_is_killed_leaves_no_alarm(tmp_path: Path) -> None:
    """The service closes a stream that had not grown since it was last signed over, and verifies that as it is."""
    service = Service(
        tmp_path, {"AUDITRACE_CHECKPOINT_INTERVAL": "1s", "AUDITRACE_SELF_CHECK_INTERVAL": "1s"}, ["--no-worker"]
    )
    own = "SELECT stream_id FROM audit_streams"
    at_rest = (
        "SELECT count(*) FROM audit_streams AS streams JOIN audit_anchors AS anchors USING (stream_id)"
        " WHERE stream_id = ? AND streams.number = anchors.number AND anchors.closed = ?"
    )
    with service:
        poll_until(lambda: bool(service.rows(own)), "the service's stream")
        known = {stream_id for (stream_id,) in service.rows(own)}
        worker = start_process([sys.executable, "-m", "service", "work"], env=service.environment, cwd=service.root)
        try:
            client = service.client()
            client.until(client.run("greet", name="somebody"), "succeeded")
            poll_until(lambda: len(service.rows(own)) > len(known), "the worker's stream")
            (stream_id,) = {stream_id for (stream_id,) in service.rows(own)} - known
            poll_until(lambda: service.rows(at_rest, stream_id, 0) == [(1,)], "a checkpoint over the worker's stream")
        finally:
            worker.kill()
            worker.wait()
        poll_until(lambda: service.rows(at_rest, stream_id, 1) == [(1,)], "the end of the worker's stream")
        # The first reading may have none before it, and the turn that is under way may have begun before the end.
        for _ in range(3):
            await_verification(service.url)
        assert "does not verify" not in service.log.read_text()
