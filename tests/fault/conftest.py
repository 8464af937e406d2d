"""Fixtures that several files of faults share."""

from collections.abc import Iterator

import pytest

from tests.support.postgres_standby import Pair, running_pair


@pytest.fixture
def confirmed() -> Iterator[Pair]:
    """A primary whose commits wait for its standby."""
    with running_pair(synchronous=True) as pair:
        yield pair


@pytest.fixture
def lagging() -> Iterator[Pair]:
    """A primary that waits for nobody, and its standby."""
    with running_pair(synchronous=False) as pair:
        yield pair
