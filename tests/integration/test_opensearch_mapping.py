"""What a mapping makes of a record in OpenSearch: the shipped one, its own, and the one that others ship."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.support.opensearch import SCRIPTS, OpenSearch

RECORD_ID = "audit.record.id"


@pytest.fixture(scope="module")
def opensearch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSearch]:
    """A node that knows the shipped template."""
    with OpenSearch(tmp_path_factory.mktemp("opensearch")) as running:
        template = (SCRIPTS / "template.json").read_text("utf-8")
        assert running.ask("PUT", "_index_template/auditrace", template)[0] == 200
        yield running


CHANGED: list[Mapping[str, Any]] = [
    {"attributes": {RECORD_ID: "a-1", "auditrace.changes": {"parameters": {"to": {"depth": to}}}}, "@timestamp": at}
    for to, at in ((2, "2026-01-02T03:04:05.000000001Z"), ("deep", "2026-01-02T03:04:05.000000002Z"))
]
"""Two records of jobs whose templates share the name of a parameter, which is a number here and a text there."""


def test_with_the_template_a_parameter_may_be_a_number_here_and_a_text_there(opensearch: OpenSearch) -> None:
    """Both records are stored, found by their ids and told apart to the nanosecond."""
    index = "ss4o_logs-auditrace-changes"
    stored = [opensearch.index(index, document)[0] for document in CHANGED]
    answer = opensearch.search(
        json.dumps({"query": {"term": {f"attributes.{RECORD_ID}": "a-1"}}, "sort": [{"@timestamp": "desc"}]}), index
    )
    assert stored == [201, 201]
    depths = [each["_source"]["attributes"]["auditrace.changes"] for each in answer["hits"]["hits"]]
    assert [each["parameters"]["to"]["depth"] for each in depths] == ["deep", 2]


def test_without_the_template_the_documented_warning_holds(opensearch: OpenSearch) -> None:
    """OpenSearch's own mapping refuses the second, finds no id by `term`, and counts nothing by an attribute."""
    first, second = (opensearch.index("untold", document) for document in CHANGED)
    assert (first[0], second[0]) == (201, 400)
    assert "auditrace.changes.parameters.to.depth" in json.dumps(second[1])
    by_term = json.dumps({"query": {"term": {f"attributes.{RECORD_ID}": "a-1"}}})
    assert opensearch.search(by_term, "untold")["hits"]["total"]["value"] == 0
    by_terms = json.dumps({"aggs": {"ids": {"terms": {"field": f"attributes.{RECORD_ID}"}}}})
    assert opensearch.ask("POST", "untold/_search", by_terms)[0] == 400


def test_attributes_of_type_flat_object_are_found_and_not_counted(opensearch: OpenSearch) -> None:
    """Of such a mapping the document says what works, a `term`, and what does not: `exists`, and a sum."""
    mapping = json.dumps({"mappings": {"properties": {"attributes": {"type": "flat_object"}}}})
    assert opensearch.ask("PUT", "flat", mapping)[0] == 200
    assert opensearch.index("flat", CHANGED[0])[0] == 201
    queries = ({"term": {f"attributes.{RECORD_ID}": "a-1"}}, {"exists": {"field": f"attributes.{RECORD_ID}"}})
    answers = [opensearch.search(json.dumps({"query": query}), "flat") for query in queries]
    assert [answer["hits"]["total"]["value"] for answer in answers] == [1, 0]
    depth = {"field": "attributes.auditrace.changes.parameters.to.depth"}
    assert opensearch.ask("POST", "flat/_search", json.dumps({"aggs": {"sum": {"sum": depth}}}))[0] == 400
