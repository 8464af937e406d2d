"""Rules of the file exporter, which keeps the copy that nothing deletes."""

from collections.abc import Iterator

from deploy.otelcol.lint.configuration import Configuration, Value, mapping
from deploy.otelcol.lint.rule import Rule


def _archives(config: Configuration) -> Iterator[tuple[str, dict[str, Value]]]:
    for name, settings in config.components_of("exporters", "file"):
        yield f"exporters::{name}", settings


def _rotation(config: Configuration) -> Iterator[str]:
    for place, settings in _archives(config):
        if not mapping(settings.get("rotation")):
            yield f"{place}::rotation"


def _backups(config: Configuration) -> Iterator[str]:
    for place, settings in _archives(config):
        rotation = mapping(settings.get("rotation"))
        if rotation and rotation.get("max_backups") != 0:
            yield f"{place}::rotation::max_backups"


def _days(config: Configuration) -> Iterator[str]:
    for place, settings in _archives(config):
        if mapping(settings.get("rotation")).get("max_days", 0) != 0:
            yield f"{place}::rotation::max_days"


def _group_by(config: Configuration) -> Iterator[str]:
    for place, settings in _archives(config):
        if mapping(settings.get("group_by")).get("enabled"):
            yield f"{place}::group_by"


def _form(config: Configuration) -> Iterator[str]:
    for place, settings in _archives(config):
        if settings.get("format", "json") != "json" or settings.get("compression") or settings.get("encoding"):
            yield place


RULES = (
    Rule(
        "archive-rotation",
        _rotation,
        "without it a start truncates the file, and a line is acknowledged a second before it is written",
        "set rotation with max_backups: 0",
    ),
    Rule(
        "archive-backups",
        _backups,
        "the default deletes the oldest file when there are a hundred",
        "set rotation::max_backups: 0, which keeps all",
    ),
    Rule(
        "archive-days",
        _days,
        "it deletes files by their age, whether or not anybody has another copy",
        "set rotation::max_days: 0 and let retention be the medium's",
    ),
    Rule(
        "archive-group-by",
        _group_by,
        "a file that is closed to open another can lose what was written to it",
        "leave group_by out",
    ),
    Rule(
        "archive-form",
        _form,
        "`auditrace verify` reads lines of OTLP JSON; compress rotated files, not the one that is written",
        "leave format at json, and compression and encoding out",
    ),
)
