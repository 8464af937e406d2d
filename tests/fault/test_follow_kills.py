"""Whoever follows the trail while processes are killed gets every record once, in the order of the ledger."""

import random
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.roles import AUDITOR
from telemetry import names
from tests.fault.followers import PersistentFollower
from tests.support.load import Load
from tests.support.postgres import PostgresServer
from tests.support.service import Service

KILLS = 6
CREATED = "&event_name=job.create"

Rows = Callable[[str], Sequence[tuple[Any, ...]]]


def _kill_and_follow(services: Sequence[Service], rows: Rows, order: str) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    draw = random.Random(seed)
    for service in services:
        service.start()
    urls = [service.url for service in services]
    auditor = services[0].key("aude", AUDITOR)
    followers = [
        PersistentFollower(urls, auditor, "", seed),
        PersistentFollower(urls, auditor, "", seed + 1, most=30),
        PersistentFollower(urls, auditor, CREATED, seed + 2),
        PersistentFollower(urls, auditor, CREATED, seed + 3, most=5),
    ]
    with ExitStack() as stack:
        for follower in followers:
            stack.enter_context(follower)
        with Load(urls, services[0].admin(), clients=2) as load:
            for _ in range(KILLS):
                load.wait_for(draw.randrange(1, 15))
                # Not at the moment of an answer: anywhere in what follows it.
                threading.Event().wait(draw.random() * 0.05)
                killed = draw.choice([[0], [1], [0, 1]])
                for number in killed:
                    services[number].kill()
                for number in killed:
                    services[number].start()
                    urls[number] = services[number].url
            load.wait_for(10)
        # What is committed now must come to everybody; the follows of those that hang up add reads of their own.
        for follower, filtered in zip(followers, (False, False, True, True), strict=True):
            follower.wait_for(len(_ledger(rows, order, is_filtered=filtered)))
        receipts = {receipt["record_id"] for receipt in load.receipts}
        for follower in followers:
            follower.begin_no_other()
        for service in services:
            assert service.stop() == 0
    everything = _ledger(rows, order, is_filtered=False)
    created = _ledger(rows, order, is_filtered=True)
    assert receipts <= set(everything)
    for follower in followers[:2]:
        # The order of the ledger, each record once, and no record is missing between the first and the last.
        assert follower.received == everything[: len(follower.received)]
    for follower in followers[2:]:
        assert follower.received == created
    ((reads,),) = rows(f"SELECT count(*) FROM audit_records WHERE event_name = '{names.EVENT_AUDIT_READ}'")
    answered = sum(follower.answered for follower in followers)
    unanswered = sum(follower.unanswered for follower in followers)
    assert answered <= reads <= answered + unanswered
    assert answered > KILLS


def _ledger(rows: Rows, order: str, *, is_filtered: bool) -> list[str]:
    where = "WHERE event_name = 'job.create'" if is_filtered else ""
    return [record_id for (record_id,) in rows(f"SELECT record_id FROM audit_records {where} ORDER BY {order}")]


@pytest.fixture
def settings() -> dict[str, str]:
    """What two processes of one service have in common."""
    return {"AUDITRACE_CHECKPOINT_INTERVAL": "1s"}


def test_followers_of_two_processes_on_one_file_get_every_record_once(tmp_path: Path, settings: dict[str, str]) -> None:
    """Two processes on one SQLite file, killed again and again."""
    services = [Service(tmp_path, settings), Service(tmp_path, settings, ["--no-relay", "--no-worker"])]
    _kill_and_follow(services, services[0].rows, "position")


def test_followers_of_two_processes_on_one_postgres_get_every_record_once(
    tmp_path: Path, settings: dict[str, str], postgres_server: PostgresServer
) -> None:
    """Two processes with four lanes each on one PostgreSQL, killed again and again."""
    url = postgres_server.create_database()
    settings = {**settings, "AUDITRACE_DATABASE": url}
    services = [Service(tmp_path, settings), Service(tmp_path, settings, ["--no-relay", "--no-worker"])]

    def rows(sql: str) -> Sequence[tuple[Any, ...]]:
        with psycopg.connect(url) as session:
            return session.execute(sql.encode()).fetchall()

    _kill_and_follow(services, rows, "observed_ns, stream_id")
    postgres_server.drop_database(url)
