"""Whatever is killed, whenever, and however the receiver fails: each matching record arrives, in order, per stream."""

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from telemetry import names
from tests.support.both_stores import BOTH, POSTGRES
from tests.support.deployment import RelayProcess
from tests.support.load import Load
from tests.support.poll_until import poll_until
from tests.support.ports import ReservedPorts
from tests.support.service import Service
from tests.support.webhook_receiver import Arrival, Reply, WebhookReceiver
from tests.support.webhooks import secret_file

KILLS = 6
PATIENCE_S = 180

FILE = """
[endpoints.all]
url = "{all}"
secret_file = "webhook.secret"
from_start = true
allow_private = true
timeout = "2s"

[endpoints.created]
url = "{created}"
secret_file = "webhook.secret"
from_start = true
allow_private = true
filter.event_name = "job.create"
"""


class FailingScript:
    """Fails at random: refuses, resets, keeps and says otherwise, or hangs; each record is taken in the end."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def __call__(self, _: Arrival) -> Reply:
        """Return the answer to one request."""
        outcomes = [
            *(Reply(500), Reply(500, kept=True), Reply(reset=True), Reply(reset=True, kept=True), Reply(400)),
            *(Reply(429, {"Retry-After": "0"}), Reply(302, {"Location": "/"}), Reply(503, {"Retry-After": "0.1"})),
        ]
        return self._draw.choice(outcomes) if self._draw.random() < 0.1 else Reply()


@pytest.fixture
def database(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if store_kind != POSTGRES:
        yield f"sqlite:///{tmp_path / 'service' / 'auditrace.db'}"
        return
    server = request.getfixturevalue("postgres_server")
    url = server.create_database()
    yield url
    server.drop_database(url)


def _committed(database: str, condition: str) -> list[tuple[str, int, str]]:
    sql = f"SELECT stream_id, number, record_id FROM audit_records WHERE {condition} ORDER BY stream_id, number"
    rows: Sequence[Any]
    if database.startswith("sqlite"):
        with closing(sqlite3.connect(database.removeprefix("sqlite:///"), timeout=30)) as connection:
            rows = connection.execute(sql).fetchall()
    else:
        with psycopg.connect(database) as session:
            rows = session.execute(sql.encode()).fetchall()
    return [(str(stream_id), int(number), str(record_id)) for stream_id, number, record_id in rows]


@pytest.mark.stores(*BOTH)
def test_kills_and_failing_receivers_lose_no_webhook(store_kind: str, database: str, tmp_path: Path) -> None:
    """SIGKILLs and pauses of service and relay under load: without repetitions, everything once and in its order."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    draw = random.Random(seed)
    reserved = ReservedPorts(1)
    folder = tmp_path / "service"
    service = Service(
        folder,
        {"AUDITRACE_DATABASE": database, "AUDITRACE_WEBHOOKS": str(folder / "webhooks.toml")},
        ["--port", str(reserved.numbers[0])],
    )
    with (
        WebhookReceiver(FailingScript(random.Random(f"{seed} all"))) as everything,
        WebhookReceiver(FailingScript(random.Random(f"{seed} created"))) as created,
    ):
        (folder / "webhooks.toml").write_text(FILE.format(all=everything.url, created=created.url))
        secret_file(folder)
        relay = RelayProcess(service)
        try:
            service.start()
            relay.start()
            _kill_at_random(draw, service, relay, everything)
            assert service.stop() == 0
            _require_all(everything, database, "1 = 1")
            _require_all(created, database, f"event_name = '{names.EVENT_JOB_CREATE}'")
            assert relay.stop() == 0
        finally:
            service.kill()
            relay.kill()
    assert everything.unsigned == created.unsigned == 0


def _kill_at_random(draw: random.Random, service: Service, relay: RelayProcess, receiver: WebhookReceiver) -> None:
    """Kill or pause one of the two processes again and again, each time after some requests arrived."""

    def restart(one: Service | RelayProcess) -> None:
        one.kill()
        one.start()

    def pause() -> None:
        relay.pause()
        _advances(receiver, 1)
        relay.resume()

    acts: list[Callable[[], None]] = [lambda: restart(service), lambda: restart(relay), pause]
    with Load([service.url], service.admin(), 2) as load:
        for number in range(KILLS):
            load.wait_for(5)
            _advances(receiver, draw.randrange(1, 20))
            acts[number % len(acts) if number < len(acts) else draw.randrange(len(acts))]()
        load.wait_for(5)


def _advances(receiver: WebhookReceiver, count: int) -> None:
    goal = receiver.request_count + count
    poll_until(lambda: receiver.request_count >= goal, f"{count} more requests", PATIENCE_S)


def _require_all(receiver: WebhookReceiver, database: str, condition: str) -> None:
    """Wait until every matching record has arrived; then each stream came in its order, and nothing else came."""
    expected = _committed(database, condition)
    poll_until(lambda: len(receiver.first_arrivals()) >= len(expected), "every record", PATIENCE_S)
    # The relay goes on to commit nothing, so that this is all.
    assert len(expected) > 5
    assert sorted(receiver.first_arrivals()) == expected
    for stream_id in {stream_id for stream_id, *_ in expected}:
        numbers = [number for each, number, _ in receiver.first_arrivals() if each == stream_id]
        assert numbers == sorted(numbers), stream_id
