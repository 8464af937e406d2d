"""Fixtures that every folder of tests shares."""

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.both_stores import POSTGRES, SQLITE, Store
from tests.support.depth import IS_QUICK
from tests.support.jobs import RunningClock
from tests.support.postgres import PostgresServer, running_server
from tests.support.postgres_stores import PostgresStore
from tests.support.sqlite_stores import SqliteStore


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker by which tests say which stores they are for; without it they are for SQLite alone."""
    config.pluginmanager.register(_SharedFixtures())
    config.addinivalue_line("markers", "stores(*names): run the test with each of these stores")
    # What whoever runs the tests has set for a service or a proxy of their own.
    for name in inherited_settings(os.environ):  # noqa: TID251 - of the test run
        del os.environ[name]  # noqa: TID251


def inherited_settings(environment: Iterable[str]) -> list[str]:
    """Return the names of variables that would reach the service, its telemetry, a database or a client in a test."""
    return [
        name
        for name in environment
        if (name.startswith(("AUDITRACE_", "OTEL_", "PG")) and not name.startswith("AUDITRACE_TEST_"))
        or name.lower().endswith("_proxy")
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that has a store with each store that it is for, unless it names them with other parameters."""
    named = [mark for mark in metafunc.definition.iter_markers("parametrize") if "store_kind" in mark.args[0]]
    if "store_kind" in metafunc.fixturenames and not named:
        marker = metafunc.definition.get_closest_marker("stores")
        metafunc.parametrize("store_kind", marker.args if marker else [SQLITE], scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a PostgreSQL, when the tests are to be quick."""
    if not IS_QUICK:
        return
    slow = [item for item in items if _needs_postgres(item)]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


def _needs_postgres(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return False
    store_kind = item.callspec.params.get("store_kind") if hasattr(item, "callspec") else None
    return store_kind == POSTGRES or "postgres_server" in item.fixturenames


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests of this process, each of which has a database of its own."""
    with running_server() as server:
        yield server


@contextmanager
def _opened(store_kind: str, request: pytest.FixtureRequest, folder: Path, *, is_running: bool) -> Iterator[Store]:
    if store_kind == SQLITE:
        store = SqliteStore(folder, RunningClock() if is_running else None)
        yield store
        store.close()
        return
    # Asked for here, so that tests of SQLite alone start no server.
    server: PostgresServer = request.getfixturevalue("postgres_server")
    on_server = PostgresStore(server, folder, is_running=is_running)
    yield on_server
    on_server.close()
    # Hundreds of databases would take minutes to remove with the server's folder.
    server.drop_database(on_server.url)


@pytest.fixture
def store(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A ledger of the test's own, with a clock that moves when it is read."""
    with _opened(store_kind, request, tmp_path, is_running=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared_store(
    store_kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    """A ledger for all tests of a file on this kind of store."""
    with _opened(store_kind, request, tmp_path_factory.mktemp("store"), is_running=False) as opened:
        yield opened


@pytest.fixture
def running_store(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A ledger of the test's own, with a clock that passes as time does."""
    with _opened(store_kind, request, tmp_path, is_running=True) as opened:
        yield opened


_RAN_BEFORE = pytest.StashKey[int]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Remember what ran before the test's own code, fixtures' processes among it."""
    item.stash[_RAN_BEFORE] = processes.mark()
    return (yield)


class _SharedFixtures:
    """A plugin, because pytest does not call the hooks of a conftest for fixtures of the whole run."""

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
        """Leave to fixtures of many tests what they start, also when a test asks for one in the midst of its code."""
        before = processes.mark()
        value = yield
        if fixturedef.scope != "function":
            processes.outlives_tests(before)
        return value


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Kill what the test itself started and left behind, also when it failed, and say so."""
    yield
    left = processes.left_since(item.stash.get(_RAN_BEFORE, processes.mark()))
    for process in left:
        process.kill()
        process.wait()
    assert not left, f"the test left processes behind: {[process.args for process in left]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep lone surrogates, which tests log on purpose, out of reports: xdist cannot send them to the main process."""
    report = yield
    report.sections = [
        (name, content.encode("utf-8", "backslashreplace").decode()) for name, content in report.sections
    ]
    return report
