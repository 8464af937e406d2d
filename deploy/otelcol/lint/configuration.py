"""A collector configuration as rules read it: the merged tree, and which pipeline feeds which."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Union, cast

Value = Union[None, bool, int, float, str, list["Value"], dict[str, "Value"]]  # noqa: UP007 - a recursive alias

AUDIT_RECEIVER: Final = "otlp/audit"

QUEUEING: Final = frozenset({"awss3", "kafka", "otlp_grpc", "otlp_http"})
"""Exporters with a sending queue that the rules know."""

# Former names of components, with their present names. Rules treat both names alike.
RENAMED: Final = {
    "otlphttp": "otlp_http",
    "otlpjsonfile": "otlp_json_file",
    "servicegraph": "service_graph",
    "spanmetrics": "span_metrics",
}


@dataclass(frozen=True)
class Pipeline:
    """One pipeline, with the ids of its components."""

    name: str
    receivers: Sequence[str]
    processors: Sequence[str]
    exporters: Sequence[str]

    @property
    def signal(self) -> str:
        """`logs`, `traces` or `metrics`."""
        return self.name.partition("/")[0]

    @property
    def place(self) -> str:
        """Its place in the configuration, in the collector's notation."""
        return f"service::pipelines::{self.name}"


class Configuration:
    """A merged configuration; environment variables are replaced by their defaults.

    Args:
        tree: The content of the files.
        components: Section and type, without underscores, of the binary's components; None if they are not known.
    """

    def __init__(self, tree: dict[str, Value], components: frozenset[tuple[str, str]] | None = None) -> None:
        self.tree = tree
        self.components = components
        self.connectors = frozenset(mapping(tree.get("connectors")))
        self.pipelines = [
            Pipeline(name, *(texts(mapping(parts).get(part)) for part in ("receivers", "processors", "exporters")))
            for name, parts in mapping(self.at("service", "pipelines")).items()
        ]

    def at(self, *path: str) -> Value:
        """Return the value at a path, or None."""
        here: Value = self.tree
        for step in path:
            here = mapping(here).get(step)
        return here

    def components_of(self, section: str, kind: str) -> Iterator[tuple[str, dict[str, Value]]]:
        """Yield id and settings of every component of this type in a section."""
        for name, settings in mapping(self.at(section)).items():
            if kind_of(name) == kind:
                yield name, mapping(settings)

    def audit_pipelines(self) -> list[Pipeline]:
        """Return the pipelines that get data from the audit receiver."""
        found = [one for one in self.pipelines if one.signal == "logs" and AUDIT_RECEIVER in one.receivers]
        for one in found:
            passed_on = self.connectors & set(one.exporters)
            found += [other for other in self.pipelines if passed_on & set(other.receivers) and other not in found]
        return found

    def ordinary_logs(self) -> list[Pipeline]:
        """Return the log pipelines of the receivers for ordinary telemetry."""
        ordinary = frozenset(mapping(self.at("receivers"))) - {AUDIT_RECEIVER}
        return [one for one in self.pipelines if one.signal == "logs" and ordinary & set(one.receivers)]

    def astray(self) -> list[Pipeline]:
        """Return those that forward records by a connector: the route of audit records sent to the wrong port."""
        return [one for one in self.ordinary_logs() if self.connectors & set(one.exporters)]

    def upstream(self, pipeline: Pipeline) -> list[Pipeline]:
        """Return the pipeline and all pipelines that lead into it."""
        found = [pipeline]
        for one in found:
            taken_from = self.connectors & set(one.receivers)
            found += [other for other in self.pipelines if taken_from & set(other.exporters) and other not in found]
        return found

    def audit_exporters(self) -> Iterator[tuple[str, dict[str, Value]]]:
        """Yield id and settings of every exporter of the audit pipelines, without connectors."""
        names = {name for pipeline in self.audit_pipelines() for name in pipeline.exporters}
        for name in sorted(names - self.connectors):
            yield name, mapping(self.at("exporters", name))

    def queues(self) -> Iterator[tuple[str, dict[str, Value]]]:
        """Yield place and settings of the sending queue of every audit exporter that has one."""
        for name, settings in self.audit_exporters():
            if has_queue(name, settings):
                yield f"exporters::{name}::sending_queue", mapping(settings.get("sending_queue"))


def has_queue(name: str, exporter: dict[str, Value]) -> bool:
    """Return whether an exporter puts requests into a queue of its own before it sends them."""
    if kind_of(name) not in QUEUEING:
        return False
    queue = exporter.get("sending_queue")
    # The S3 exporter has no queue unless the section is present.
    is_on_by_default = kind_of(name) != "awss3" or "sending_queue" in exporter
    return mapping(queue).get("enabled", is_on_by_default) is not False


def kind_of(name: str) -> str:
    """Return the type in a component's id, under its present name."""
    kind = name.partition("/")[0]
    return RENAMED.get(kind, kind)


def mapping(value: Value) -> dict[str, Value]:
    """Return the value if it is a mapping, else an empty one: a section that is left out has no settings."""
    return value if isinstance(value, dict) else {}


def sequence(value: Value) -> list[Value]:
    """Return the value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def texts(value: Value) -> list[str]:
    """Return the members of a list as text."""
    return [str(member) for member in sequence(value)]


def walk(value: Value, place: str) -> Iterator[tuple[str, Value]]:
    """Yield every value below this one with its place."""
    children = enumerate(value) if isinstance(value, list) else mapping(value).items()
    for key, child in cast("Iterator[tuple[object, Value]]", children):
        yield f"{place}::{key}", child
        yield from walk(child, f"{place}::{key}")
