"""Records of a real service in a real OpenSearch: asked with the queries of docs/correlation.md, and verified there."""

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from telemetry.audit.verify import Report, read_copy, verify
from tests.integration.test_correlation import BLOCKS, LISTS, of, record_ids, variables
from tests.support.collector import ROOT
from tests.support.documented import Block, filled_in
from tests.support.keys import public_key
from tests.support.observed import DENIED_LOGINS, Observed
from tests.support.opensearch import FILLED, OpenSearch

ATTEMPTS = "Failed attempts by source"
COMMANDS = "Into OpenSearch and back"
RECORD_ID = "audit.record.id"


class Searched(NamedTuple):
    """An OpenSearch that holds what the collector of a deployment archived; everything else has ended its work."""

    observed: Observed
    opensearch: OpenSearch


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    """The story's records, brought into OpenSearch with the command of the document."""
    folder = tmp_path_factory.mktemp("searched")
    with OpenSearch(folder / "opensearch") as opensearch, Observed(folder / "observed") as observed:
        observed.tell()
        observed.settle()
        load, _ = commands()
        done = opensearch.shell(load, observed.collector.archive_dir)
        count = len(observed.records())
        assert (done.returncode, done.stdout, done.stderr) == (0, f"records: {count}, new: {count}\n", "")
        yield Searched(observed, opensearch)


def commands() -> tuple[str, str]:
    """Return what the document says to type: to bring records in, and to get them out and verify them."""
    load, export = (block for block in BLOCKS if block.section == COMMANDS and block.language == "console")
    return _typed(load), _typed(export)


def _typed(block: Block) -> str:
    return "\n".join(line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ "))


def query(section: str, values: Mapping[str, str]) -> str:
    """Return the document's query for OpenSearch in a section, its variables filled in."""
    (block,) = (block for block in BLOCKS if block.section == section and block.language == "json")
    return filled_in(block.text, values)


def hits(searched: Searched, section: str) -> list[dict[str, Any]]:
    """Return the documents that the query of a section finds, in its order."""
    answer = searched.opensearch.search(query(section, variables(searched.observed)))
    return [hit["_source"] for hit in answer["hits"]["hits"]]


def verdict(searched: Searched, copy: Path) -> Report:
    """Verify a copy with the public key alone."""
    return verify(
        read_copy([copy]), public_keys=[public_key(searched.observed.service.folder / "keys" / "signing.pem")]
    )


def test_every_query_for_opensearch_is_asked_here() -> None:
    """The document has one for each of its questions, says that it was tried, and no other."""
    asked = Counter(block.section for block in BLOCKS if block.language == "json")
    assert asked == dict.fromkeys((*LISTS, ATTEMPTS), 1)
    assert all(block.is_tried for block in BLOCKS if block.language == "json")


@pytest.mark.parametrize("section", [section for section in LISTS if section != "The story of a job"])
def test_each_documented_question_finds_exactly_the_right_records(searched: Searched, section: str) -> None:
    """The query finds the records that the database has, no other, in the order of time, and their bodies unaltered."""
    asked = variables(searched.observed)
    wanted = of(searched.observed, lambda record: LISTS[section](record, asked))
    assert 0 < len(wanted) < len(searched.observed.records())
    found = hits(searched, section)
    assert [each["attributes"][RECORD_ID] for each in found] == record_ids(wanted)
    assert [json.loads(each["body"]) for each in found] == wanted


def test_every_record_is_there_with_the_types_it_was_made_with(searched: Searched) -> None:
    """Ids, times, resource and attributes are those of the body, and the body is the text that was hashed."""
    answer = searched.opensearch.search('{"size": 1000, "query": {"match_all": {}}}')
    found = {hit["_id"]: hit for hit in answer["hits"]["hits"]}
    assert set(found) == set(record_ids(searched.observed.records()))
    for (body,) in searched.observed.service.rows("SELECT body FROM audit_records"):
        record = json.loads(body)
        hit = found[record["attributes"][RECORD_ID]]
        assert hit["_index"] == f"ss4o_logs-auditrace-{record['timestamp'][:7]}"
        document = hit["_source"]
        assert document["body"] == body
        assert (document["traceId"], document["spanId"]) == (record["trace_id"], record["span_id"])
        times = (document["@timestamp"], document["observedTimestamp"])
        assert times == (record["timestamp"], record["observed_timestamp"])
        record["attributes"].pop("auditrace.job.plan", None)
        assert document["attributes"].items() >= record["attributes"].items()
        assert document["resource"].items() >= record["resource"].items()
        assert document["attributes"]["audit.integrity.hash"]


def test_a_record_leads_to_its_trace_and_span(searched: Searched) -> None:
    """Asked for a record, it answers with the ids of the span that made it."""
    asked = variables(searched.observed)
    (found,) = hits(searched, "The trace of a record")
    assert (found["traceId"], found["spanId"]) == (asked["TRACE_ID"], asked["SPAN_ID"])


def test_the_story_of_a_job_reads_as_it_happened(searched: Searched) -> None:
    """Who, what, with which result, from the creation to the end of the run, refused attempts included."""
    told = [
        (
            attributes["audit.action"],
            attributes.get("auditrace.initiator.id", attributes["audit.actor.id"]),
            attributes["auditrace.result"],
            attributes.get("auditrace.changes", {}).get("status", {}).get("to"),
        )
        for attributes in (found["attributes"] for found in hits(searched, "The story of a job"))
    ]
    assert told == [
        ("CREATE", "olga", "success", "created"),
        ("UPDATE", "olga", "success", "draft_ready"),
        ("APPROVE", "olga", "denied", None),
        ("APPROVE", "ann", "rejected", None),
        ("APPROVE", "ann", "success", "confirmed"),
        ("EXECUTE", "ann", "success", "queued"),
        ("UPDATE", "ann", "success", "running"),
        ("UPDATE", "ann", "success", "succeeded"),
    ]


def test_failed_attempts_are_counted_by_source(searched: Searched) -> None:
    """Every refused request counts, also those that a flood's record only counts; most attempts come first."""
    answer = searched.opensearch.search(query(ATTEMPTS, {}))
    counted = [(*each["key"], each["attempts"]["value"]) for each in answer["aggregations"]["sources"]["buckets"]]
    assert counted[0] == ("127.0.0.1", "anonymous", "denied", DENIED_LOGINS)
    assert set(counted[1:]) == {("127.0.0.1", "olga", "denied", 1), ("127.0.0.1", "ann", "rejected", 1)}


def test_what_comes_back_verifies(searched: Searched, tmp_path: Path) -> None:
    """The documented export, in one page or several, is intact to the last checkpoint; without one of its hits not."""
    _, typed = commands()
    export, auditrace = typed.splitlines()
    assert auditrace == "auditrace verify export.jsonl --public-key public.pem"
    done = searched.opensearch.shell(f"cd {tmp_path}\n{export.replace('deploy/', f'{ROOT}/deploy/')}")
    assert (done.returncode, done.stderr) == (0, "")
    copy = tmp_path / "export.jsonl"
    paged = searched.opensearch.shell('deploy/opensearch/export.sh "$OPENSEARCH" 7')
    assert sorted(_bodies(paged.stdout)) == sorted(_bodies(copy.read_text("utf-8")))
    report = verdict(searched, copy)
    assert (report.verdict, report.findings) == ("intact", ())
    assert report.records == len(searched.observed.records())
    assert report.last_checkpoint is not None
    copy.write_text("".join(copy.read_text("utf-8").splitlines(keepends=True)[1:]), "utf-8")
    assert verdict(searched, copy).verdict == "broken"


def _bodies(export: str) -> list[str]:
    return [json.loads(line)["_source"]["body"] for line in export.splitlines()]


def test_an_answer_of_search_verifies_as_it_is(searched: Searched, tmp_path: Path) -> None:
    """What `_search` answers, saved as one JSON document, is intact too."""
    copy = tmp_path / "answer.json"
    copy.write_text(json.dumps(searched.opensearch.search('{"size": 1000}'), indent=2), "utf-8")
    report = verdict(searched, copy)
    assert (report.verdict, report.records) == ("intact", len(searched.observed.records()))


def test_loading_again_adds_nothing_whatever_became_of_the_files(searched: Searched, tmp_path: Path) -> None:
    """Compressed files and lines behind a torn one are read, and each record stays one document."""
    (file,) = searched.observed.collector.archive_dir.iterdir()
    with gzip.open(tmp_path / "audit-2026.jsonl.gz", "wb") as packed:
        packed.write(b'{"resourceLogs":[{"resource":{"attrib' + file.read_bytes())
    shutil.copy(file, tmp_path / "audit.jsonl")
    count = len(searched.observed.records())
    load, _ = commands()
    done = searched.opensearch.shell(load, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"records: {2 * count}, new: 0\n", "")
    one = searched.opensearch.shell(load, tmp_path / "audit-2026.jsonl.gz")
    assert (one.returncode, one.stdout, one.stderr) == (0, f"records: {count}, new: 0\n", "")
    answer = searched.opensearch.search('{"size": 0, "track_total_hits": true}')
    assert answer["hits"]["total"]["value"] == count


def test_what_opensearch_refuses_fails_the_load(searched: Searched) -> None:
    """Records that it does not take end the command with 1 and its reason; the next run, once it does, is well."""
    load, _ = commands()
    archive = searched.observed.collector.archive_dir
    assert searched.opensearch.ask("PUT", f"{FILLED}/_settings", '{"index.blocks.write": true}')[0] == 200
    refused = searched.opensearch.shell(load, archive)
    assert searched.opensearch.ask("PUT", f"{FILLED}/_settings", '{"index.blocks.write": null}')[0] == 200
    count = len(searched.observed.records())
    assert (refused.returncode, refused.stdout) == (1, f"records: {count}, new: 0\n")
    assert f"load.sh: refused: {count} records, the first is" in refused.stderr
    assert "index write (api)" in refused.stderr
    assert searched.opensearch.shell(load, archive).returncode == 0


def test_what_never_can_be_stored_holds_nothing_up(searched: Searched, tmp_path: Path) -> None:
    """What is no record is left out, a record that the mapping cannot take is named, and those behind both arrive."""
    (file,) = searched.observed.collector.archive_dir.iterdir()
    foreign = [_line("a text"), _line("[]"), _line("{}"), _line('{"attributes":{"audit.record.id":"b-1"}}')]
    attributes = {RECORD_ID: "b-2", "audit.action": {"an": "object"}}
    poison = _line(json.dumps({"timestamp": "2026-01-02T03:04:05.000000001Z", "attributes": attributes}))
    lines = [line.encode() for line in (*foreign, '{"resourceLogs":[{}]}', "{}", "[]", poison)]
    (tmp_path / "audit.jsonl").write_bytes(b"\n".join([*lines, file.read_bytes()]))
    load, _ = commands()
    done = searched.opensearch.shell(load, tmp_path)
    assert (done.returncode, done.stdout) == (1, f"records: {len(searched.observed.records()) + 1}, new: 0\n")
    assert 'load.sh: refused: 1 records, the first is {"_id":"b-2"' in done.stderr
    assert "attributes.audit.action" in done.stderr


def _line(body: str) -> str:
    """Return an archive's line with one log record, of an unknown sender."""
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": body}}]}]}]})


def test_a_command_that_cannot_work_says_why(searched: Searched, tmp_path: Path) -> None:
    """No archive, nobody at the address: status 1, and what is wrong."""
    nothing = searched.opensearch.shell('deploy/opensearch/load.sh "$ARCHIVE" "$OPENSEARCH"', tmp_path)
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "there is no archive" in nothing.stderr
    for script in ('load.sh "$ARCHIVE"', "export.sh"):
        astray = searched.opensearch.shell(
            f"deploy/opensearch/{script} http://127.0.0.1:1", searched.observed.collector.archive_dir
        )
        assert (astray.returncode, astray.stdout) == (1, "")
        assert "http://127.0.0.1:1" in astray.stderr
