"""The folder of a run is removed whatever the run left in it, and nothing outside of it."""

import os
from pathlib import Path

from service.execution.folder import remove_folder


def test_a_folder_goes_however_deep_it_is(tmp_path: Path) -> None:
    """Thousands of nested folders, longer than any path may be, are removed."""
    folder = tmp_path / "run"
    folder.mkdir()
    at = os.open(folder, os.O_RDONLY)
    for _ in range(5_000):
        os.mkdir("a", dir_fd=at)
        inner = os.open("a", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    remove_folder(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_goes_whatever_its_permissions_are(tmp_path: Path) -> None:
    """Folders that nobody may enter, and files that nobody may write, are removed."""
    folder = tmp_path / "run"
    (folder / "closed" / "inner").mkdir(parents=True)
    (folder / "closed" / "inner" / "file").write_text("x")
    (folder / "closed" / "inner").chmod(0o500)
    (folder / "closed").chmod(0)
    remove_folder(folder)
    assert list(tmp_path.iterdir()) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    """What links in the folder, or a link in its place, point to stays as it is."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "file").write_text("x")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    os.link(outside / "file", folder / "second")
    (tmp_path / "instead").symlink_to(outside)
    remove_folder(folder)
    remove_folder(tmp_path / "instead")
    assert not folder.exists()
    assert (outside / "file").read_text() == "x"
    assert outside.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """The supervisor and the worker both remove the folder; the second one finds nothing."""
    remove_folder(tmp_path / "run")
    remove_folder(tmp_path / "parent" / "run")
