"""What is provisioned in Grafana and Jaeger: each query and link, its variables filled in, asked of a real backend.

Grafana, Loki and Tempo themselves cannot be run here: what only they could answer is held to their own grammars.
"""

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
import yaml

from deploy.grafana.__main__ import BOARDS, DASHBOARDS, SETS, made
from telemetry import names
from tests.support.backends import Jaeger
from tests.support.collector import ROOT, require_binary
from tests.support.documented import blocks_of
from tests.support.observed import Observed
from tests.support.poll_until import poll_until

GRAFANA = ROOT / "deploy" / "grafana"
SOURCES = {
    name: yaml.safe_load((GRAFANA / "provisioning" / name / "datasources.yaml").read_text())["datasources"]
    for name in SETS
}
BUILT_IN = {"__rate_interval": "1m", "__auto": "1m"}
CONDITIONAL = {"otelcol_exporter_send_failed_log_records"}
"""Series that begin with a failure; tests/integration/test_deploy_metrics.py sees them begin."""

_VARIABLE = re.compile(r"\$\{?(\w+)")
_METRIC = re.compile(r"\b((?:auditrace|otelcol|http_server|traces)_\w+)")
_BY = re.compile(r"\bby \(([^)]*)\)")
_MATCHER = re.compile(r'[{,] *(\w+)(?:=|!=|=~|!~)"')


class Target(NamedTuple):
    """A query of a panel of a dashboard of a set of backends."""

    where: str
    source: str
    spec: Mapping[str, Any]
    kind: str

    @property
    def text(self) -> str:
        """The query as it is written."""
        return str(self.spec.get("expr", self.spec.get("query", "")))


def dashboards(backends: str) -> Iterator[Mapping[str, Any]]:
    """Yield the dashboards of a set of backends."""
    for path in sorted((DASHBOARDS / backends).glob("*.json")):
        yield json.loads(path.read_text())


def targets(backends: str, source: str) -> Sequence[Target]:
    """Return every query of a data source's type in a set of dashboards."""
    return [
        Target(f"{board['title']}: {panel['title']}", source, target, panel["type"])
        for board in dashboards(backends)
        for panel in board["panels"]
        for target in panel["targets"]
        if target["datasource"]["type"] == source
    ]


def filled_in(text: str, values: Mapping[str, str]) -> str:
    """Return a query with Grafana's variables replaced; one without a value fails."""
    return _VARIABLE.sub(lambda found: values[found[1]], text)


def values(observed: Observed) -> Mapping[str, str]:
    """What a reader has typed."""
    return {"tenant": ".+", "actor": ".+", "job_id": observed.jobs["approved"], **BUILT_IN}


# What can be judged without a backend.


def test_the_dashboards_are_what_their_boards_make_of_them() -> None:
    """Nobody edited a dashboard by hand, or a board without `python -m deploy.grafana`; none is left over."""
    texts = made()
    assert {path: path.read_text() for path in DASHBOARDS.glob("*/*.json")} == texts
    assert len(texts) == len(SETS) * len(list(BOARDS.glob("*.yaml")))


@pytest.mark.parametrize("backends", SETS)
def test_a_dashboard_names_only_what_is_provisioned(backends: str) -> None:
    """Each data source of a panel or link exists under its fixed id and type, each variable of a query in its board."""
    provisioned = {(source["uid"], source["type"]) for source in SOURCES[backends]}
    assert len({source["uid"] for source in SOURCES[backends]}) == len(SOURCES[backends])
    linked = set(
        re.findall(r"datasourceUid: (\w+)", (GRAFANA / "provisioning" / backends / "datasources.yaml").read_text())
    )
    assert linked <= {uid for uid, _ in provisioned}
    for board in dashboards(backends):
        typed = {variable["name"] for variable in board["templating"]["list"]}
        for panel in board["panels"]:
            assert (panel["datasource"]["uid"], panel["datasource"]["type"]) in provisioned, panel["title"]
            for target in panel["targets"]:
                asked = set(
                    _VARIABLE.findall(json.dumps({key: target[key] for key in target if key != "legendFormat"}))
                )
                assert asked <= typed | set(BUILT_IN), panel["title"]


@pytest.mark.parametrize("backends", SETS)
def test_panels_lie_beside_each_other(backends: str) -> None:
    """No two panels of a dashboard overlap or share an id, and none is wider than the page."""
    for board in dashboards(backends):
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken, panel["title"]
            assert at["x"] + at["w"] <= 24
            taken |= cells


def test_every_query_for_loki_and_tempo_is_one() -> None:
    """LogQL and TraceQL of dashboards, data sources and documents parse under Grafana's own grammars."""
    logql = [
        filled_in(target.text, {"tenant": ".+", "actor": ".+", "job_id": "j", **BUILT_IN})
        for target in targets("grafana", "loki")
    ]
    traceql = [filled_in(target.text, {"job_id": "j"}) for target in targets("grafana", "tempo")]
    logql += [
        filled_in(text, {"__trace": "t", "__span": "s"}).replace(".traceId}", "").replace(".spanId}", "")
        for text in links_from_spans("grafana")
    ]
    for block in blocks_of(ROOT / "docs" / "correlation.md"):
        if block.language in {"logql", "traceql"}:
            (logql if block.language == "logql" else traceql).append(re.sub(r"\$\w+", "x", block.text))
    assert len(logql) > 15
    assert len(traceql) > 1
    asked = [{"language": "logql", "text": text} for text in logql] + [
        {"language": "traceql", "text": text} for text in traceql
    ]
    broken = {"language": "logql", "text": "{a=} | b"}
    *found, control = grammar([*asked, broken])
    assert [(query["text"], wrong) for query, wrong in zip(asked, found, strict=True) if wrong] == []
    assert control is not None


def grammar(queries: Sequence[Mapping[str, str]]) -> list[str | None]:
    """Return for each query the piece at which it stops being one."""
    script = require_binary("grammars", "make tools") / "check.js"
    done = subprocess.run(["node", script], input=json.dumps(queries), capture_output=True, text=True, check=True)
    found: list[str | None] = json.loads(done.stdout)
    return found


def links_from_spans(backends: str) -> set[str]:
    """Return the queries by which the data sources of traces lead from a span to its records."""
    return {
        source["jsonData"]["tracesToLogsV2"]["query"].replace("$$", "$")
        for source in SOURCES[backends]
        if "tracesToLogsV2" in source["jsonData"]
    }


# What real backends answer.


@pytest.mark.parametrize(
    "target", targets("grafana", "prometheus"), ids=lambda target: f"{target.where} {target.spec['refId']}"
)
def test_every_metric_and_label_of_a_panel_is_there(observed: Observed, target: Target) -> None:
    """Prometheus takes the query, and knows each metric in it with each label that it asks for."""
    query = filled_in(target.text, BUILT_IN)
    observed.metrics.query(query)
    metrics = set(_METRIC.findall(re.sub(r"\bby \([^)]*\)|{[^}]*}", "", query))) - CONDITIONAL
    if not metrics:
        return
    poll_until(lambda: metrics <= observed.metrics.names(), f"{metrics}")
    labels: set[str] = set()
    for metric in metrics:
        series = observed.metrics.get("/api/v1/series", **{"match[]": metric})
        labels |= {label for each in series for label in each}
    asked = {label.strip() for found in _BY.findall(query) for label in found.split(",")} | set(_MATCHER.findall(query))
    # A failure's class is there once something failed.
    assert asked <= labels | {"error_type", "error_permanent"}, target.where


def test_the_queries_of_prometheus_are_the_same_in_both_sets() -> None:
    """So that asking once is enough."""
    texts = [[target.text for target in targets(backends, "prometheus")] for backends in SETS]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "target", targets("victoria", "victoriametrics-logs-datasource"), ids=lambda target: target.where
)
def test_every_panel_over_logs_has_an_answer(observed: Observed, target: Target) -> None:
    """VictoriaLogs answers each query of the dashboards with records; a list has a line of text for each."""
    query = filled_in(target.text, values(observed))
    if target.spec.get("queryType") == "statsRange":
        series = stats_range(observed, query)
        assert sum(float(value) for each in series for _, value in each["values"]) > 0
        assert all(
            label in each["metric"]
            for each in series
            for label in re.findall(r"{{([\w.]+)}}", target.spec["legendFormat"])
        )
    else:
        rows = observed.logs.query(query)
        assert rows
        assert all(row["_msg"].strip() and row["event_name"] in row["_msg"] for row in rows)


def stats_range(observed: Observed, query: str) -> list[dict[str, Any]]:
    """Return what VictoriaLogs answers to a query of counts in time."""
    form = urllib.parse.urlencode({"query": query, "start": "1h", "end": "now", "step": "1m"}).encode()
    url = f"http://{observed.logs.addresses[0]}/select/logsql/stats_query_range"
    with urllib.request.urlopen(url, form, timeout=30) as answer:
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result


def test_the_story_on_the_dashboard_is_whole_and_in_order(observed: Observed) -> None:
    """The board of a job shows every record of it, first to last."""
    (target,) = [
        each for each in targets("victoria", "victoriametrics-logs-datasource") if each.where.startswith("Story")
    ]
    rows = observed.logs.query(filled_in(target.text, values(observed)))
    wanted = [
        record["attributes"][names.AUDIT_RECORD_ID]
        for record in observed.records()
        if record["attributes"].get(names.AUDITRACE_JOB_ID) == observed.jobs["approved"]
    ]
    assert [row[names.AUDIT_RECORD_ID] for row in rows] == wanted


def test_a_span_leads_to_exactly_its_records(observed: Observed) -> None:
    """The link of the data source of traces, with the ids of a span, finds what that span made and nothing else."""
    (query,) = links_from_spans("victoria")
    by_span: dict[tuple[str, str], set[str]] = {}
    for record in observed.records():
        key = (record["trace_id"], record["span_id"])
        by_span.setdefault(key, set()).add(record["attributes"][names.AUDIT_RECORD_ID])
    assert {len(made) for made in by_span.values()} >= {1, 2}
    for (trace_id, span_id), made_there in by_span.items():
        asked = query.replace("${__trace.traceId}", trace_id).replace("${__span.spanId}", span_id)

        def is_answered(asked: str = asked, wanted: set[str] = made_there) -> bool:
            return {row[names.AUDIT_RECORD_ID] for row in observed.logs.query(asked)} == wanted

        # Not only once: on a busy machine VictoriaLogs was seen to leave out a record that it had shown before.
        poll_until(is_answered, f"exactly the records of span {span_id} of trace {trace_id}: {made_there}")


def test_a_record_leads_to_its_trace(observed: Observed) -> None:
    """The fields by which a record leads on are there, and Jaeger, as Grafana asks it, has the trace."""
    fields = {each["matcherRegex"] for each in SOURCES["victoria"][-1]["jsonData"]["derivedFields"]}
    for row in observed.logs.query(f'"{names.AUDITRACE_JOB_ID}":*'):
        assert fields <= set(row)
        with urllib.request.urlopen(
            f"http://{observed.traces.addresses[1]}/api/traces/{row['trace_id']}", timeout=30
        ) as answer:
            (trace,) = json.load(answer)["data"]
        assert row["span_id"] in {span["spanID"] for span in trace["spans"]}
    in_loki = {each["matcherRegex"] for each in SOURCES["grafana"][-1]["jsonData"]["derivedFields"]}
    assert in_loki == {field.replace(".", "_") for field in fields}


def test_the_traces_of_a_job_are_found_by_search(observed: Observed) -> None:
    """The search of the board for VictoriaTraces, asked of Jaeger's API, which is the one that it answers."""
    (target,) = targets("victoria", "jaeger")
    key, value = filled_in(target.spec["tags"], values(observed)).split("=")
    found = set(observed.traces.search(target.spec["service"], {key: value}))
    runs = [record for record in observed.records() if record["event_name"] == names.EVENT_JOB_STATUS_TRANSITION]
    assert found == {
        record["trace_id"]
        for record in runs
        if record["attributes"][names.AUDITRACE_JOB_ID] == observed.jobs["approved"]
    }


# Jaeger's own page.

UI = json.loads((ROOT / "deploy" / "jaeger" / "ui.json").read_text())
EXPLORER = (ROOT / "service" / "web" / "explorer.js").read_text()


def test_jaeger_links_from_the_attributes_that_spans_have(observed: Observed) -> None:
    """Each link of Jaeger's page begins at an attribute of a real span, and its variables are known there."""
    keys: set[str] = set()
    for record in observed.records():
        for span in observed.traces.spans(record["trace_id"]):
            keys |= {attribute["key"] for attribute in span["attributes"]}
    for pattern in UI["linkPatterns"]:
        assert pattern["type"] == "traces" or pattern["key"] in keys
        for variable in re.findall(r"#\{([^}]+)\}", pattern["url"] + pattern["text"]):
            assert variable in keys | {"traceID", "trace.traceID"}, pattern


def test_jaeger_s_links_arrive(observed: Observed) -> None:
    """A link to the explorer names a filter that it has or a span, one to Grafana a dashboard and a variable of it."""
    listed = re.search(r"const FILTERS = \[(.*?)\]", EXPLORER)
    assert listed is not None
    filters = set(re.findall(r'"(\w+)"', listed[1]))
    boards = {board["uid"]: {each["name"] for each in board["templating"]["list"]} for board in dashboards("grafana")}
    urls = [pattern["url"] for pattern in UI["linkPatterns"]] + [
        item["url"] for menu in UI["menu"] for item in menu["items"]
    ]
    for url in urls:
        parts = urllib.parse.urlsplit(re.sub(r"#\{[^}]+\}", "x", url))
        if parts.port == 3000:
            board = parts.path.removeprefix("/d/")
            assert {f"var-{name}" for name in boards[board]} >= set(urllib.parse.parse_qs(parts.query)), url
        else:
            assert set(urllib.parse.parse_qs(parts.fragment)) <= filters | {"span_of"}, url


def test_jaeger_starts_with_the_configuration_of_the_demonstration(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The shipped configuration, with the links, is one that Jaeger takes."""

    class Shipped(Jaeger):
        def arguments(self) -> Sequence[str]:
            return (f"--config={ROOT / 'deploy' / 'jaeger' / 'jaeger.yaml'}",)

        def settings(self) -> Mapping[str, str]:
            return {**super().settings(), "JAEGER_UI": str(ROOT / "deploy" / "jaeger" / "ui.json")}

    with Shipped(tmp_path_factory.mktemp("jaeger")) as jaeger:
        assert jaeger.spans("0" * 31 + "1") == []
        with urllib.request.urlopen(f"http://{jaeger.addresses[1]}/", timeout=30) as page:
            assert page.status == 200
