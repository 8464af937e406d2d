"""Rules of the file exporter, which writes the archive. Nothing deletes the archive."""

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
        "without it a start truncates the file, and a line is acknowledged up to a second before it is written",
        "set rotation with max_backups: 0",
    ),
    Rule(
        "archive-backups",
        setting(
            _archives,
            "rotation::max_backups",
            lambda archive: _rotation(archive) and _rotation(archive).get("max_backups") != 0,
        ),
        "the default deletes the oldest file when there are a hundred files",
        "set rotation::max_backups: 0, which keeps all files",
    ),
    Rule(
        "archive-days",
        setting(_archives, "rotation::max_days", lambda archive: _rotation(archive).get("max_days", 0) != 0),
        "it deletes files by their age, also when there is no other copy",
        "set rotation::max_days: 0 and let the storage medium do the retention",
    ),
    Rule(
        "archive-group-by",
        setting(_archives, "group_by", lambda archive: mapping(archive.get("group_by")).get("enabled")),
        "when it closes a file to open another, records written to the file can be lost",
        "remove group_by",
    ),
    Rule(
        "archive-form",
        _form,
        "`auditrace verify` reads lines of OTLP JSON; compress rotated files, not the file that is being written",
        "keep format: json, and remove compression and encoding",
    ),
)
