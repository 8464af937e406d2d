"""Rules of traces: sampling keeps every trace that an audit record points to, and rates count all spans."""

from collections.abc import Iterator

from deploy.otelcol.lint.configuration import Configuration, Value, kind_of, mapping, sequence, texts, walk
from deploy.otelcol.lint.rule import Rule, Settings, setting

_HINTS = ('attributes["audit.record.id"] != nil', 'attributes["audit.recorded"] == true')
_SAMPLERS = {"filter", "probabilistic_sampler"}
_RATES = {"service_graph", "span_metrics"}


def _samplers(config: Configuration) -> Iterator[tuple[str, Settings]]:
    for name, settings in config.components_of("processors", "tail_sampling"):
        yield f"processors::{name}", settings


def _drop(config: Configuration) -> Iterator[str]:
    for place, settings in _samplers(config):
        for below, value in walk(settings.get("policies"), f"{place}::policies"):
            if mapping(value).get("type") == "drop":
                yield below


def _invert(config: Configuration) -> Iterator[str]:
    for place, settings in _samplers(config):
        for below, value in walk(settings.get("policies"), f"{place}::policies"):
            if below.endswith("::invert_match") and value:
                yield below


def _number(value: Value) -> float:
    return value if isinstance(value, int | float) else 0


def _other_samplers(config: Configuration) -> Iterator[str]:
    for pipeline in config.pipelines:
        for name in pipeline.processors if pipeline.signal == "traces" else ():
            if kind_of(name) in _SAMPLERS:
                yield f"{pipeline.place}::processors::{name}"


def _rates(config: Configuration) -> Iterator[str]:
    for pipeline in config.pipelines:
        samples = any(kind_of(name) == "tail_sampling" for one in config.upstream(pipeline) for name in one.processors)
        for name in pipeline.exporters if samples else ():
            if kind_of(name) in _RATES:
                yield f"{pipeline.place}::exporters::{name}"


def _keeps_audited_first(sampler: Settings) -> bool:
    policies = sequence(sampler.get("policies"))
    first = mapping(policies[0]) if policies else {}
    conditions = " ".join(texts(mapping(first.get("ottl_condition")).get("span")))
    return first.get("type") == "ottl_condition" and all(hint in conditions for hint in _HINTS)


def _remembers_enough(sampler: Settings) -> bool:
    remembered = _number(mapping(sampler.get("decision_cache")).get("sampled_cache_size"))
    return remembered > _number(sampler.get("num_traces", 50_000))


RULES = (
    Rule(
        "sample-audit-first",
        setting(_samplers, "policies::0", lambda sampler: not _keeps_audited_first(sampler)),
        "an audit record would point to a trace that sampling has dropped",
        f"make the first policy an ottl_condition on spans: {' or '.join(_HINTS)}",
    ),
    Rule(
        "sample-drop",
        _drop,
        "a drop policy overrides every policy that keeps a trace, also the policy for audit records",
        "remove drop policies",
    ),
    Rule(
        "sample-invert",
        _invert,
        "an inverted match that fails overrides every policy that keeps a trace",
        "remove invert_match and write what to keep",
    ),
    Rule(
        "sample-late",
        setting(_samplers, "decision_cache::sampled_cache_size", lambda sampler: not _remembers_enough(sampler)),
        "spans that come after the decision get a new decision, without the span that an audit record points to",
        "set decision_cache::sampled_cache_size well above num_traces",
    ),
    Rule(
        "sample-shutdown",
        setting(
            _samplers,
            "drop_pending_traces_on_shutdown",
            lambda sampler: sampler.get("drop_pending_traces_on_shutdown"),
        ),
        "traces that wait for their decision would be dropped at every restart",
        "remove drop_pending_traces_on_shutdown",
    ),
    Rule(
        "sample-size",
        setting(
            _samplers,
            "maximum_trace_size_bytes",
            lambda sampler: _number(sampler.get("maximum_trace_size_bytes")) > 0,
        ),
        "a trace above the limit is dropped, even when audit records point to it",
        "remove maximum_trace_size_bytes",
    ),
    Rule(
        "trace-sampler",
        _other_samplers,
        "it drops spans even when an audit record points to their trace",
        "sample only with tail_sampling",
    ),
    Rule(
        "rates-before-sampling",
        _rates,
        "rates, errors and the service graph would count only the sampled traces",
        "feed span_metrics and service_graph from a pipeline in front of tail_sampling",
    ),
)
