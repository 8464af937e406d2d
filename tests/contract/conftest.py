"""Fixtures of the contract tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.delivery.answers import Sink
from tests.support.api import ApiUnderTest
from tests.support.both_stores import Store
from tests.support.deliveries import sink_to
from tests.support.jobs import Jobs
from tests.support.otlp_sink import OtlpSink


@pytest.fixture
def api(store: Store, tmp_path: Path) -> Iterator[ApiUnderTest]:
    """The whole API over a ledger of the test's own."""
    opened = ApiUnderTest(store, tmp_path)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def shared_api(shared_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiUnderTest]:
    """One API for all tests of a file on a store: each of them acts under names of its own (`someone`)."""
    opened = ApiUnderTest(shared_store, tmp_path_factory.mktemp("api"))
    yield opened
    opened.close()


@pytest.fixture
def jobs(running_store: Store, tmp_path: Path) -> Iterator[Jobs]:
    """A ledger with clients and workers of the test's own."""
    opened = Jobs(tmp_path, store=running_store)
    yield opened
    opened.close()


@pytest.fixture
def server() -> Iterator[OtlpSink]:
    """An OTLP server that listens."""
    with OtlpSink() as started:
        yield started


@pytest.fixture(params=["http", "grpc"])
def sink(request: pytest.FixtureRequest, server: OtlpSink) -> Iterator[Sink]:
    """The server as a relay sees it, over each protocol."""
    opened = sink_to(server, request.param)
    yield opened
    opened.close()


@pytest.fixture
def http(server: OtlpSink) -> Iterator[Sink]:
    """The server as a relay sees it over HTTP."""
    opened = sink_to(server, "http")
    yield opened
    opened.close()
