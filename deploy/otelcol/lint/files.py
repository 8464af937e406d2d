"""Reads configurations and builder manifests from files, like the collector and its builder.

Source: the collector's documentation, "Configuration": a later file replaces lists and merges maps, and
`${env:NAME:-default}` is an environment variable. Here each variable has its default.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import yaml

from deploy.otelcol.lint.configuration import Configuration, Value, mapping, sequence

_WHOLE = re.compile(r"\$\{env:\w+:-([^}]*)\}")


class ConfigurationError(Exception):
    """A file is not a collector configuration; the message names the file and the reason."""


def load(files: Sequence[Path], manifest: Path | None = None) -> Configuration:
    """Return the configuration that a collector makes of these files, in this order.

    Args:
        files: The values of the collector's `--config` options, in order.
        manifest: The builder's manifest, which lists the components of the binary.

    Raises:
        ConfigurationError: A file is missing, is not YAML, or holds no mapping.
    """
    tree: dict[str, Value] = {}
    for path in files:
        tree = merge(tree, _read(path))
    return Configuration(tree, None if manifest is None else _components(_read(manifest)))


def merge(base: dict[str, Value], over: dict[str, Value]) -> dict[str, Value]:
    """Return both as one: maps are merged, and any other value of `over` replaces that of `base`."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _read(path: Path) -> dict[str, Value]:
    try:
        content = cast("Value", yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: holds no mapping; a collector configuration has sections such as receivers")
    return mapping(_with_defaults(content))


def _with_defaults(value: Value) -> Value:
    if isinstance(value, dict):
        return {key: _with_defaults(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_with_defaults(child) for child in value]
    if not isinstance(value, str):
        return value
    whole = _WHOLE.fullmatch(value)
    # A value that consists of one variable gets the type of the default.
    return cast("Value", yaml.safe_load(whole[1])) if whole else _WHOLE.sub(lambda found: found[1], value)


def _components(manifest: dict[str, Value]) -> frozenset[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for section in ("receivers", "processors", "exporters", "connectors", "extensions"):
        for entry in sequence(manifest.get(section)):
            module = str(mapping(entry).get("gomod")).partition(" ")[0].rpartition("/")[2]
            found.add((section, module.removesuffix(section.removesuffix("s"))))
    return frozenset(found)
