"""Rules of the file exporter, which keeps the copy that nothing deletes."""

from collections.abc import Iterator

from deploy.otelcol.lint.configuration import Configuration, mapping
from deploy.otelcol.lint.rule import Rule, Settings, setting


def _archives(config: Configuration) -> Iterator[tuple[str, Settings]]:
    for name, settings in config.components_of("exporters", "file"):
        yield f"exporters::{name}", settings


def _rotation(archive: Settings) -> Settings:
    return mapping(archive.get("rotation"))


def _form(config: Configuration) -> Iterator[str]:
    for place, settings in _archives(config):
        if settings.get("format", "json") != "json" or settings.get("compression") or settings.get("encoding"):
            yield place


RULES = (
    Rule(
        "archive-rotation",
        setting(_archives, "rotation", lambda archive: not _rotation(archive)),
        "without it a start truncates the file, and a line is acknowledged a second before it is written",
        "set rotation with max_backups: 0",
    ),
    Rule(
        "archive-backups",
        setting(
            _archives,
            "rotation::max_backups",
            lambda archive: _rotation(archive) and _rotation(archive).get("max_backups") != 0,
        ),
        "the default deletes the oldest file when there are a hundred",
        "set rotation::max_backups: 0, which keeps all",
    ),
    Rule(
        "archive-days",
        setting(_archives, "rotation::max_days", lambda archive: _rotation(archive).get("max_days", 0) != 0),
        "it deletes files by their age, whether or not anybody has another copy",
        "set rotation::max_days: 0 and let retention be the medium's",
    ),
    Rule(
        "archive-group-by",
        setting(_archives, "group_by", lambda archive: mapping(archive.get("group_by")).get("enabled")),
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
