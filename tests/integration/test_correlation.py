"""From a record to its trace and back, asked of real backends with the queries of docs/correlation.md."""

import json
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from telemetry import names
from telemetry.audit.verify import read_copy, verify
from tests.support.collector import ROOT
from tests.support.documented import Block, blocks_of, filled_in, typed_in
from tests.support.keys import public_key
from tests.support.observed import API, DENIED_LOGINS, WORKER, Observed
from tests.support.poll_until import poll_until

BLOCKS = blocks_of(ROOT / "docs" / "correlation.md")
FUNCTIONS = next(block for block in BLOCKS if block.section == "Where things stand")
EXPORT = "Verified where it landed"
WALK = "From an alert to one refused request"

Record = Mapping[str, Any]


def variables(observed: Observed) -> Mapping[str, str]:
    """What the queries are asked about: the claim of the approved job's run, which ann caused and a worker recorded."""
    (claim, _) = of(
        observed,
        lambda record: (
            record["event_name"] == names.EVENT_JOB_STATUS_TRANSITION and _job(record) == observed.jobs["approved"]
        ),
    )
    return {
        "TRACE_ID": claim["trace_id"],
        "SPAN_ID": claim["span_id"],
        "RECORD_ID": claim["attributes"][names.AUDIT_RECORD_ID],
        "ACTOR": "ann",
        "ACTION": "APPROVE",
        "JOB_ID": observed.jobs["approved"],
        "SERVICE": WORKER,
        "NOW_MS": str(time.time_ns() // 1_000_000),  # noqa: TID251 - Jaeger wants the end of a range
    }


def _job(record: Record) -> object:
    return record["attributes"].get(names.AUDITRACE_JOB_ID)


def of(observed: Observed, matches: Callable[[Record], bool]) -> list[Record]:
    """Return the records of the database that match, oldest first."""
    return [record for record in observed.records() if matches(record)]


def record_ids(records: Sequence[Record]) -> list[str]:
    """Return their ids."""
    return [record["attributes"][names.AUDIT_RECORD_ID] for record in records]


def blocks(language: str, section: str | None = None) -> list[Block]:
    """Return what the document says was tried, in a language."""
    return [
        block
        for block in BLOCKS
        if block.language == language and block.is_tried and block is not FUNCTIONS and section in (None, block.section)
    ]


def answers(observed: Observed, block: Block, values: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what VictoriaLogs, or the shell over the collector's archive, answers to a block: one object a row."""
    if block.language == "logsql":
        return [dict(row) for row in observed.logs.query(filled_in(block.text, values))]
    environment = {**values, "ARCHIVE": str(observed.collector.archive_dir), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    script = f"set -eu\n{FUNCTIONS.text}\n{block.text}\n"
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def named(row: Mapping[str, Any]) -> str:
    """Return the record id of a row, from its columns or from the body that it is."""
    return str(row.get(names.AUDIT_RECORD_ID) or row["attributes"][names.AUDIT_RECORD_ID])


LISTS: Mapping[str, Callable[[Record, Mapping[str, str]], bool]] = {
    "All records of a trace": lambda record, asked: record["trace_id"] == asked["TRACE_ID"],
    "The records of one span": lambda record, asked: record["span_id"] == asked["SPAN_ID"],
    "The trace of a record": lambda record, asked: record["attributes"][names.AUDIT_RECORD_ID] == asked["RECORD_ID"],
    "Everything one actor did": lambda record, asked: (
        asked["ACTOR"]
        in (record["attributes"][names.AUDIT_ACTOR_ID], record["attributes"].get(names.AUDITRACE_INITIATOR_ID))
    ),
    "The story of a job": lambda record, asked: _job(record) == asked["JOB_ID"],
}


@pytest.mark.parametrize("language", ["logsql", "sh"])
@pytest.mark.parametrize("section", LISTS)
def test_each_documented_question_lists_exactly_the_right_records(
    observed: Observed, section: str, language: str
) -> None:
    """The query of the document names the records that the database has, no other, in the order of time."""
    asked = variables(observed)
    wanted = record_ids(of(observed, lambda record: LISTS[section](record, asked)))
    assert 0 < len(wanted) < len(observed.records())
    (block,) = blocks(language, section)
    assert [named(row) for row in answers(observed, block, asked)] == wanted


@pytest.mark.parametrize("language", ["logsql", "sh"])
def test_a_record_leads_to_its_trace_and_span(observed: Observed, language: str) -> None:
    """Asked for a record, both answer with the ids of the span that made it."""
    asked = variables(observed)
    (block,) = blocks(language, "The trace of a record")
    (row,) = answers(observed, block, asked)
    assert (row["trace_id"], row["span_id"]) == (asked["TRACE_ID"], asked["SPAN_ID"])


@pytest.mark.parametrize("language", ["logsql", "sh"])
def test_failed_attempts_are_counted_by_source(observed: Observed, language: str) -> None:
    """Every refused request counts, also those that a flood's record only counts."""
    (block,) = blocks(language, "Failed attempts by source")
    found = {
        (row["audit.actor.id"], row["auditrace.result"], row["client.address"]): int(row["attempts"])
        for row in answers(observed, block, {})
    }
    assert found == {
        ("anonymous", "denied", "127.0.0.1"): DENIED_LOGINS,
        ("olga", "denied", "127.0.0.1"): 1,
        ("ann", "rejected", "127.0.0.1"): 1,
    }


def test_the_story_of_a_job_reads_as_it_happened(observed: Observed) -> None:
    """Who, what, with which result and for which reason, from the creation to the end of the run."""
    (block,) = blocks("sh", "The story of a job")
    told = [
        (row["event_name"], row["who"], row["result"], row["to"])
        for row in answers(observed, block, variables(observed))
    ]
    assert told == [
        ("job.create", "olga", "success", "created"),
        ("job.draft", "olga", "success", "draft_ready"),
        ("job.confirm", "olga", "denied", None),
        ("job.confirm", "ann", "rejected", None),
        ("job.confirm", "ann", "success", "confirmed"),
        ("job.run.trigger", "ann", "success", "queued"),
        ("job.status.transition", "ann", "success", "running"),
        ("job.status.transition", "ann", "success", "succeeded"),
    ]


def test_nothing_that_the_document_calls_tried_escapes_this_module() -> None:
    """Each block that readers take for tested belongs to a section that is tested here, in a language that is run."""
    tested = {
        **{(section, language): 1 for section in LISTS for language in ("logsql", "sh")},
        ("Failed attempts by source", "logsql"): 1,
        ("Failed attempts by source", "sh"): 1,
        ("The trace of a record", "http"): 2,
        ("From the API over the queue to the worker", "http"): 1,
        ("From the API over the queue to the worker", "promql"): 1,
        (WALK, "promql"): 1,
        (WALK, "logsql"): 2,
        (WALK, "http"): 1,
    }
    claimed = Counter((block.section, block.language) for block in BLOCKS if block.is_tried and block is not FUNCTIONS)
    # JSON is for OpenSearch, and what is typed on a console is no query: test_opensearch and a test below type it.
    typed = {section for section, language in claimed if language == "console"}
    claimed = Counter({block: count for block, count in claimed.items() if block[1] not in ("json", "console")})
    assert claimed == tested
    assert typed == {EXPORT, "Into OpenSearch and back"}


def ask_jaeger(observed: Observed, line: str, values: Mapping[str, str]) -> Any:
    """Return Jaeger's answer to a line such as `GET /api/traces/…`."""
    method, path = filled_in(line, values).split(" ", 1)
    assert method == "GET"
    with urllib.request.urlopen(f"http://{observed.traces.addresses[1]}{path}", timeout=30) as answer:
        return json.load(answer)


def spans_of(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the spans of a trace as Jaeger answers with it."""
    return [span for each in answer["resourceSpans"] for scope in each["scopeSpans"] for span in scope.get("spans", ())]


def test_jaeger_finds_the_trace_by_its_id_by_the_record_and_by_what_happened(observed: Observed) -> None:
    """The three ways of the document lead to the trace in which the record was made, the span with its id in it."""
    asked = variables(observed)
    by_record, by_action = blocks("http", "The trace of a record")
    by_id, by_record_id = by_record.text.splitlines()
    answer = ask_jaeger(observed, by_id, asked)["result"]
    assert asked["SPAN_ID"] in [span["spanId"] for span in spans_of(answer)]
    # A search takes one service, and finds an array by its whole text: here a record that its span made alone.
    (confirm,) = of(
        observed,
        lambda record: (
            record["event_name"] == names.EVENT_JOB_CONFIRM
            and record["attributes"][names.AUDITRACE_RESULT] == "success"
        ),
    )
    asked = {**asked, "SERVICE": API, "RECORD_ID": record_ids([confirm])[0]}
    assert [found["traceID"] for found in ask_jaeger(observed, by_record_id, asked)["data"]] == [confirm["trace_id"]]
    found = {each["traceID"] for each in ask_jaeger(observed, by_action.text, asked)["data"]}
    assert found == {
        record["trace_id"] for record in of(observed, lambda record: record["event_name"] == names.EVENT_JOB_CONFIRM)
    }


def _found(observed: Observed, query: str) -> Sequence[str]:
    return [log[names.AUDIT_RECORD_ID] for log in observed.logs.query(query)]


def test_every_record_is_found_by_what_people_ask_for(observed: Observed) -> None:
    """Trace, span, actor, action, target and record id lead to each record, and its body has the right types."""
    records, by_id = observed.records(), dict[str, Any]()

    def is_whole() -> bool:
        # VictoriaLogs sometimes leaves out, for a moment, a record that it has shown before.
        by_id.update({log[names.AUDIT_RECORD_ID]: log for log in observed.logs.query('"audit.record.id":*')})
        return by_id.keys() >= set(record_ids(records))

    poll_until(is_whole, "every record")
    for record in records:
        (record_id,) = record_ids([record])
        attributes = record["attributes"]
        questions = {
            "trace_id": record["trace_id"],
            "span_id": record["span_id"],
            **{
                key: attributes[key]
                for key in (names.AUDIT_ACTOR_ID, names.AUDIT_ACTION, names.AUDIT_TARGET_ID, names.AUDIT_RECORD_ID)
            },
        }
        query = " ".join(f'"{key}":="{value}"' for key, value in questions.items())
        poll_until(lambda query=query, record_id=record_id: record_id in _found(observed, query), query)
        assert json.loads(by_id[record_id]["_msg"]) == record


def test_numbers_are_compared_as_numbers(observed: Observed) -> None:
    """Though VictoriaLogs keeps texts, a range over the number of a record is one of numbers: 9 comes before 10."""
    found = observed.logs.query(f'"{names.AUDIT_SEQUENCE_NUMBER}":>8 "{names.AUDIT_SEQUENCE_NUMBER}":<12')
    wanted = of(observed, lambda record: 8 < record["attributes"][names.AUDIT_SEQUENCE_NUMBER] < 12)
    assert sorted(log[names.AUDIT_RECORD_ID] for log in found) == sorted(record_ids(wanted))


def test_each_record_s_trace_has_the_span_that_made_it(observed: Observed) -> None:
    """In Jaeger the span that a record names carries the record's id, in an array, and what a search needs.

    A span of several records, as of a changed configuration, has the target of one of them.
    """
    for record in observed.records():
        (span,) = [each for each in observed.traces.spans(record["trace_id"]) if each["spanId"] == record["span_id"]]
        values = {each["key"]: each["value"] for each in span["attributes"]}
        ids = [value["stringValue"] for value in values[names.AUDIT_RECORD_ID]["arrayValue"]["values"]]
        assert record_ids([record])[0] in ids, record["event_name"]
        assert values[names.AUDIT_RECORDED] == {"boolValue": True}
        assert values[names.AUDIT_ACTION] == {"stringValue": record["attributes"][names.AUDIT_ACTION]}
        target = {"stringValue": record["attributes"][names.AUDIT_TARGET_ID]}
        assert values[names.AUDIT_TARGET_ID] == target or len(ids) > 1


def test_the_edge_from_the_api_over_the_queue_to_the_worker_is_there(observed: Observed) -> None:
    """The service graph counts both runs as one edge of a messaging system; Jaeger draws the same edge."""
    (block,) = blocks("promql", "From the API over the queue to the worker")
    poll_until(lambda: [value for _, value in observed.metrics.query(block.text)] == [2.0], "the edge of both runs")
    (block,) = blocks("http", "From the API over the queue to the worker")
    edges = ask_jaeger(observed, block.text, variables(observed))["data"]
    assert {(edge["parent"], edge["child"]) for edge in edges} >= {(API, WORKER)}


def test_what_came_back_verifies(observed: Observed, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The export of VictoriaLogs that the document tells to type, and the archive, are intact."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "public.pem").write_text(observed.service.command("keys", "public").stdout)
    (block,) = (block for block in BLOCKS if block.section == EXPORT)
    for typed in typed_in(block):
        done = subprocess.run(
            ["bash", "-c", typed.command],
            env={
                "PATH": f"{ROOT / '.venv' / 'bin'}:/usr/local/bin:/usr/bin:/bin",
                "VICTORIA_LOGS": f"http://{observed.logs.addresses[0]}",
            },
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    export = folder / "export.jsonl"
    key = public_key(observed.service.folder / "keys" / "signing.pem")
    for copy in (export, observed.collector.archive_dir):
        report = verify(read_copy([copy]), public_keys=[key])
        assert (report.verdict, report.findings, report.records) == ("intact", (), len(observed.records()))
        assert report.last_checkpoint is not None


def test_a_clean_stop_with_all_telemetry_switched_on_reports_no_error(observed: Observed) -> None:
    """The last collection of metrics, the last spans and the last records leave no error in the log."""
    lines = [json.loads(line) for line in observed.service.log.read_text().splitlines()]
    assert [line for line in lines if line["level"] in {"ERROR", "CRITICAL"}] == []


def test_the_duration_of_a_request_leads_to_its_trace(observed: Observed) -> None:
    """In Prometheus the durations have exemplars; those of audited requests name traces that were kept."""
    now_s = time.time_ns() / 1e9  # noqa: TID251 - Prometheus wants the end of a range
    exemplars = observed.metrics.exemplars("http_server_request_duration_seconds_bucket", now_s - 3600, now_s + 60)
    spans = {(each["labels"]["trace_id"], each["labels"]["span_id"]) for each in exemplars}
    assert spans & {(record["trace_id"], record["span_id"]) for record in observed.records()}


def test_the_walk_from_an_alert_ends_at_one_refused_request(observed: Observed) -> None:
    """Each step's answer is the next one's question, from the route of a burst to the span of one refused request."""
    (alert,), (who, one), (trace,) = blocks("promql", WALK), blocks("logsql", WALK), blocks("http", WALK)
    routes = [labels["http_route"] for labels, _ in observed.metrics.query(alert.text)]
    assert "/v1/jobs" in routes
    asked = {"ROUTE": "/v1/jobs"}
    (source,) = answers(observed, who, asked)
    assert (source["audit.actor.id"], int(source["attempts"])) == ("anonymous", DENIED_LOGINS)
    asked["SOURCE"] = source["client.address"]
    (row,) = answers(observed, one, asked)
    asked |= {"RECORD_ID": row[names.AUDIT_RECORD_ID], "TRACE_ID": row["trace_id"], "SPAN_ID": row["span_id"]}
    answer = ask_jaeger(observed, trace.text, asked)["result"]
    (span,) = [span for span in spans_of(answer) if span["spanId"] == asked["SPAN_ID"]]
    values = {each["key"]: each["value"] for each in span["attributes"]}
    assert asked["RECORD_ID"] in str(values[names.AUDIT_RECORD_ID])
    (back,) = answers(observed, blocks("logsql", "The records of one span")[0], asked)
    assert back[names.AUDIT_RECORD_ID] == asked["RECORD_ID"]
