"""What log backends export: the bodies are found under whatever key, and a signature beside them if there is one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telemetry.audit.ocsf import ocsf_event
from telemetry.audit.verify import Found, read_copy, verify
from tests.support.ledger_maker import KEY, Ledger, Sealed


@pytest.fixture
def ledger() -> Ledger:
    """Return a ledger whose last record is a checkpoint."""
    made = Ledger()
    for stream in (1, 2, 1, 2):
        made.append(stream, **{"auditrace.reason": 'a "quoted" text, \\ and \u2028'})
    made.checkpoint(1)
    made.append(2)
    made.checkpoint(2)
    return made


def attributes(record: Sealed) -> dict[str, Any]:
    """Return the attributes that a record is sent with."""
    signature = {} if record.signature is None else {"audit.integrity.value": record.signature}
    return {**record.attributes, "audit.integrity.hash": record.hash, **signature}


def underscored(record: Sealed) -> dict[str, str]:
    """Return the attributes as Loki keeps them: dots become underscores, and values texts."""
    return {key.replace(".", "_"): str(value) for key, value in attributes(record).items()}


def nested(record: Sealed) -> dict[str, Any]:
    """Return the attributes as Elasticsearch may keep them: an object for each dot."""
    root: dict[str, Any] = {}
    for key, value in attributes(record).items():
        at = root
        *before, last = key.split(".")
        for part in before:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                break
        else:
            at[last] = value
    return root


def lines(shape: Callable[[Sealed], Any]) -> Callable[[Ledger], str]:
    """Return an export with one object to a line."""
    return lambda made: "".join(f"{json.dumps(shape(record))}\n" for record in made.records)


def loki(made: Ledger) -> dict[str, Any]:
    """Return an answer of `query_range`: a stream for each set of labels, structured metadata among them."""
    result = [
        {
            "stream": {"service_name": "auditrace", **underscored(record)},
            "values": [["1767225600000000000", record.text]],
        }
        for record in made.records
    ]
    return {"status": "success", "data": {"resultType": "streams", "result": result, "stats": {"summary": {}}}}


def loki_with_metadata(made: Ledger) -> dict[str, Any]:
    """Return an answer of `query_range` that was asked to keep structured metadata apart."""
    values = [
        ["1767225600000000000", record.text, {"structuredMetadata": underscored(record)}] for record in made.records
    ]
    return {
        "status": "success",
        "data": {"resultType": "streams", "result": [{"stream": {"a": "b"}, "values": values}]},
    }


def hits(source: Callable[[Sealed], Any]) -> Callable[[Ledger], dict[str, Any]]:
    """Return an answer of `_search`."""
    return lambda made: {
        "took": 3,
        "hits": {
            "total": {"value": len(made.records)},
            "hits": [
                {"_index": "audit", "_id": record.record_id, "_source": source(record)} for record in made.records
            ],
        },
    }


def document(shape: Callable[[Ledger], Any], indent: int | None = None) -> Callable[[Ledger], str]:
    """Return an export that is one JSON document."""
    return lambda made: json.dumps(shape(made), indent=indent)


def pretty_bodies(made: Ledger) -> str:
    """Return objects that carry bodies, each over several lines, as `jq` prints them."""
    return "\n".join(json.dumps({"body": record.text, "id": record.record_id}, indent=2) for record in made.records)


WITH_SIGNATURES = {
    "Loki query_range": document(loki),
    "Loki query_range, pretty": document(loki, indent=2),
    "Loki query_range with metadata": document(loki_with_metadata),
    "logcli jsonl": lines(lambda record: {"labels": underscored(record), "line": record.text, "timestamp": "t"}),
    "VictoriaLogs": lines(
        lambda record: {
            "_time": "t",
            "_stream_id": "0",
            "_stream": "{}",
            "_msg": record.text,
            **{key: str(value) for key, value in attributes(record).items()},
        }
    ),
    "Elasticsearch hits": document(
        hits(lambda record: {"body": {"text": record.text}, "attributes": attributes(record)})
    ),
    "Elasticsearch hits, pretty": document(
        hits(lambda record: {"body": {"text": record.text}, "attributes": nested(record)}), indent=1
    ),
    "Elasticsearch lines": lines(
        lambda record: {
            "_index": "audit",
            "_source": {"message": "a text", "body.text": record.text, **attributes(record)},
        }
    ),
    "Elasticsearch sources": lines(lambda record: {"attributes": attributes(record), "body": {"text": record.text}}),
    "Elasticsearch fields": lines(
        lambda record: {"fields": {"body.text": [record.text], "audit.integrity.value": [record.signature or ""]}}
    ),
    "OpenSearch": lines(lambda record: {"_source": {"body": record.text, "log.attributes": attributes(record)}}),
    "ClickHouse": lines(lambda record: {"Timestamp": "t", "Body": record.text, "LogAttributes": attributes(record)}),
}
WITHOUT_SIGNATURES = {
    "bodies": lambda made: "".join(f"{record.text}\n" for record in made.records),
    "logcli raw": lambda made: "\n".join(record.text for record in made.records),
    "message": lines(lambda record: {"message": record.text}),
    "Docker": lines(lambda record: {"log": record.text, "stream": "stdout", "time": "t"}),
    "Splunk": lines(lambda record: {"preview": False, "result": {"_raw": record.text}}),
    "CloudWatch": document(lambda made: {"events": [{"message": record.text} for record in made.records]}),
    "array": document(lambda made: [{"msg": record.text} for record in made.records]),
    "array, pretty": document(lambda made: [{"msg": record.text} for record in made.records], indent=4),
    "own API": document(
        lambda made: {"records": [{"record_id": record.record_id, "body": record.text} for record in made.records]}
    ),
    "jq": pretty_bodies,
    "OCSF": lines(lambda record: ocsf_event(record.text)),
}


def export(folder: Path, text: str) -> Path:
    """Write an export."""
    file = folder / "export.json"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("name", [*WITH_SIGNATURES, *WITHOUT_SIGNATURES])
def test_every_export_holds_the_same_bodies(ledger: Ledger, tmp_path: Path, name: str) -> None:
    """Whatever a backend calls it and wraps it in, the body comes out byte for byte, and in its order."""
    text = {**WITH_SIGNATURES, **WITHOUT_SIGNATURES}[name](ledger)

    found = list(read_copy([export(tmp_path, text)]))

    assert [one.body for one in found] == [record.text for record in ledger.records]
    assert not any(one.torn for one in found)


@pytest.mark.parametrize("name", WITH_SIGNATURES)
def test_a_signature_beside_a_body_verifies_the_last_checkpoint(ledger: Ledger, tmp_path: Path, name: str) -> None:
    """An export that kept the signatures verifies up to its last checkpoint."""
    report = verify(read_copy([export(tmp_path, WITH_SIGNATURES[name](ledger))]), public_keys=[KEY.public_key()])

    assert (report.verdict, report.findings) == ("intact", ())
    assert report.last_checkpoint is not None
    assert report.last_checkpoint.number == 2


@pytest.mark.parametrize("name", WITHOUT_SIGNATURES)
def test_bodies_without_signatures_verify_up_to_the_last_checkpoint_but_one(
    ledger: Ledger, tmp_path: Path, name: str
) -> None:
    """An export of bodies alone has the signature of each checkpoint in the next one."""
    report = verify(read_copy([export(tmp_path, WITHOUT_SIGNATURES[name](ledger))]), public_keys=[KEY.public_key()])

    assert (report.verdict, report.findings) == ("intact", ())
    assert report.last_checkpoint is not None
    assert report.last_checkpoint.number == 1


@pytest.mark.parametrize("name", WITH_SIGNATURES)
def test_an_edited_signature_beside_a_body_is_found(ledger: Ledger, tmp_path: Path, name: str) -> None:
    """A signature that an export has and that does not hold is a finding."""
    ledger.records[-1].signature = "A" * 86 + "=="
    report = verify(read_copy([export(tmp_path, WITH_SIGNATURES[name](ledger))]), public_keys=[KEY.public_key()])

    assert [finding.code for finding in report.findings] == ["signature"]


@pytest.mark.parametrize("name", [*WITH_SIGNATURES, *WITHOUT_SIGNATURES])
def test_what_is_missing_from_an_export_is_found(ledger: Ledger, tmp_path: Path, name: str) -> None:
    """A record that is not in an export is missed at its number."""
    del ledger.records[1]
    text = {**WITH_SIGNATURES, **WITHOUT_SIGNATURES}[name](ledger)

    report = verify(read_copy([export(tmp_path, text)]), public_keys=[KEY.public_key()])

    assert [(finding.code, finding.number) for finding in report.findings] == [("gap", 2)]


@pytest.mark.parametrize(
    "text",
    [
        '{"status":"success","data":{"resultType":"streams","result":[],"stats":{}}}\n',
        '{"took":1,"hits":{"total":{"value":0},"hits":[]}}',
        '{\n  "took": 1,\n  "hits": {\n    "hits": []\n  }\n}\n',
        "[]\n",
        "[\n]\n",
        '{"records":[],"next_cursor":null}',
    ],
)
def test_a_page_without_records_is_nothing(tmp_path: Path, text: str) -> None:
    """An answer that holds no record, such as the last page of several, is neither a record nor a fragment."""
    assert list(read_copy([export(tmp_path, text)])) == []


def test_a_document_that_was_cut_short_is_noted(ledger: Ledger, tmp_path: Path) -> None:
    """An export over several lines that ends too early is noted; what is whole before it counts."""
    text = pretty_bodies(ledger)
    found = list(read_copy([export(tmp_path, text[:-20])]))

    assert [one.body for one in found if not one.torn] == [record.text for record in ledger.records[:-1]]
    assert [one.torn for one in found] == [False] * (len(ledger.records) - 1) + [True]
    assert found[-1].place.line == text.count("\n", 0, text.rindex("{\n")) + 1


def test_an_archive_that_begins_with_a_fragment_is_no_document(ledger: Ledger, tmp_path: Path) -> None:
    """A first line of a single brace, torn from an archive's line, does not hide the lines behind it."""
    text = "{\n" + "".join(f"{record.line()}\n" for record in ledger.records)

    found: list[Found] = list(read_copy([export(tmp_path, text)]))

    assert [one.body for one in found] == [None, *(record.text for record in ledger.records)]


def test_a_line_that_is_no_record_is_one_that_cannot_be_read(tmp_path: Path) -> None:
    """An entry of an export that is some other log line is reported, as it was exported for a record."""
    report = verify(read_copy([export(tmp_path, '{"_msg":"started","_time":"t"}\n')]))

    assert [finding.code for finding in report.findings] == ["body_not_json"]
