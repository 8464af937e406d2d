"""Fixtures that every folder of tests shares."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.both_stores import POSTGRES, SQLITE, Store
from tests.support.jobs import RunningClock
from tests.support.postgres import PostgresServer, running_server
from tests.support.postgres_stores import PostgresStore
from tests.support.stores import SqliteStore


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker by which tests say which stores they are for; without it they are for SQLite alone."""
    config.addinivalue_line("markers", "stores(*names): run the test with each of these stores")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that has a store with each store that it is for."""
    if "store_kind" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("stores")
        metafunc.parametrize("store_kind", marker.args if marker else [SQLITE])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests of this process, each of which has a database of its own."""
    with running_server() as server:
        yield server


@pytest.fixture
def store(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A ledger of the test's own, with a clock that moves when it is read."""
    opened: Store
    if store_kind == POSTGRES:
        opened = PostgresStore(request.getfixturevalue("postgres_server"), tmp_path)
    else:
        opened = SqliteStore(tmp_path)
    yield opened
    opened.close()
    if isinstance(opened, PostgresStore):
        # Hundreds of databases would take minutes to remove with the server's folder.
        request.getfixturevalue("postgres_server").drop_database(opened.url)


@pytest.fixture
def running_store(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A ledger of the test's own, with a clock that passes as time does."""
    opened: Store
    if store_kind == POSTGRES:
        opened = PostgresStore(request.getfixturevalue("postgres_server"), tmp_path, is_running=True)
    else:
        opened = SqliteStore(tmp_path, RunningClock())
    yield opened
    opened.close()
    if isinstance(opened, PostgresStore):
        # Hundreds of databases would take minutes to remove with the server's folder.
        request.getfixturevalue("postgres_server").drop_database(opened.url)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep lone surrogates, which tests log on purpose, out of reports: xdist cannot send them to the main process."""
    report = yield
    report.sections = [
        (name, content.encode("utf-8", "backslashreplace").decode()) for name, content in report.sections
    ]
    return report
