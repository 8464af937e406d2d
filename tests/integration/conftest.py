"""Fixtures of the integration tests."""

from collections.abc import Iterator

import pytest

from tests.support.observed import Observed


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """The whole deployment after the story, its processes ended and everything arrived; the backends run on."""
    with Observed(tmp_path_factory.mktemp("observed")) as running:
        running.tell()
        running.settle()
        yield running
