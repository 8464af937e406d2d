"""What several first starts at the same time make of an empty database."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.bootstrap.node import open_node
from service.config import read_settings
from service.operations.keys import KeyOperations


def test_two_first_starts_at_the_same_time_make_one_first_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that comes second serves like the first; the file holds the key that counts."""
    monkeypatch.chdir(tmp_path)
    settings = read_settings({})
    with open_node(settings, "api") as one, open_node(settings, "api") as other:
        key_operations = other.key_operations

        @contextmanager
        def late() -> Generator[KeyOperations]:
            # It has seen a database without keys by now.
            assert one.ensure_admin_key() == settings.admin_key
            with key_operations() as operations:
                yield operations

        monkeypatch.setattr(other, "key_operations", late)
        assert other.ensure_admin_key() is None
        (key,) = other.reads.keys()
        assert key.key_id in settings.admin_key.read_text()
