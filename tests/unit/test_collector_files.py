"""The files around the collector agree with each other: two manifests, and the settings with their documentation."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "otelcol"
CONFIGURATIONS = [ROOT / "otel-collector.yaml", *sorted(set(FOLDER.glob("*.yaml")) - set(FOLDER.glob("builder*.yaml")))]
DOCUMENT = (ROOT / "docs" / "collector.md").read_text("utf-8")


def _modules(name: str) -> dict[str, str]:
    """Return each module of a manifest with its version."""
    text = (FOLDER / name).read_text("utf-8")
    return dict(re.findall(r"^ *- gomod: (\S+) (\S+)$", text, re.MULTILINE))


def test_the_full_manifest_is_the_small_one_and_two_exporters() -> None:
    """Whatever the tests prove on the small build runs in the full one at the same version."""
    small, full = _modules("builder.yaml"), _modules("builder-full.yaml")
    assert small.items() <= full.items()
    more = sorted(module.rpartition("/")[2] for module in full.keys() - small.keys())
    assert more == ["awss3exporter", "kafkaexporter"]


def _settings(path: Path) -> dict[str, str]:
    """Return each setting of a configuration with its default."""
    return dict(re.findall(r"\$\{env:(\w+):-([^}]*)\}", _without_comments(path)))


def _without_comments(path: Path) -> str:
    return re.sub(r"^ *#.*$", "", path.read_text("utf-8"), flags=re.MULTILINE)


def test_every_setting_is_documented_with_its_default() -> None:
    """The tables name each setting that base and overlays read, none else, and the default that they state."""
    read = {name: default for path in CONFIGURATIONS for name, default in _settings(path).items()}
    told = dict(re.findall(r"`([A-Z0-9_]+)` \| (?:`([^`]*)`)? ?\|", DOCUMENT))
    assert told == read


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_every_setting_has_a_default(path: Path) -> None:
    """A variable that nobody set never becomes an empty value by accident, and has one default within a file."""
    text = _without_comments(path)
    assert re.findall(r"\$\{env:\w+\}|\$\{\w+\}|\$[A-Z]\w*", text) == []
    defaults = set(re.findall(r"\$\{env:(\w+):-([^}]*)\}", text))
    assert len(defaults) == len({name for name, _ in defaults})
