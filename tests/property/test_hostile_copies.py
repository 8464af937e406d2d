"""Whatever a copy holds, a verification answers: it never ends in an error, and never says intact of what is not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.audit.verify import Report, read_copy, verify
from telemetry.audit.verify.read.archive import records_of_line
from telemetry.audit.verify.read.found import SourcePlace
from tests.support.depth import IS_LONG, examples
from tests.support.ledger_maker import FOREIGN_KEY, KEY, Ledger

QUICK = settings(
    derandomize=not IS_LONG,
    deadline=None,
    max_examples=examples(150, long=20_000),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["{}", "é", "9" * 30]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=5)
            | st.sampled_from(
                [
                    "body",
                    "stringValue",
                    "key",
                    "value",
                    "resourceLogs",
                    "hits",
                    "_msg",
                    "values",
                    "stream",
                    "attributes",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


def ledger() -> Ledger:
    """Return a small ledger whose key is rotated, and whose last checkpoint but one covers everything before."""
    made = Ledger()
    made.append(1)
    made.checkpoint(1)
    made.append(2)
    made.rotate(1, FOREIGN_KEY)
    made.checkpoint(2)
    made.checkpoint(2)
    return made


def check(lines: list[bytes]) -> Report:
    """Verify lines under both keys."""
    found = (one for at, line in enumerate(lines, 1) for one in records_of_line(line, SourcePlace("a", at)))
    return verify(found, public_keys=[KEY.public_key(), FOREIGN_KEY.public_key()])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values within a value."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield (*path, key)
        yield from places(member, (*path, key))


@QUICK
@given(st.data())
def test_any_value_anywhere_in_a_log_record_is_answered(data: st.DataObject) -> None:
    """Whatever JSON stands in the place of any value of an archive's line, there is an answer."""
    lines = [record.line() for record in ledger().records]
    at = data.draw(st.integers(0, len(lines) - 1))
    line = json.loads(lines[at])
    path = data.draw(st.sampled_from([*places(line)]))
    inner = line
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = data.draw(JSON)
    lines[at] = json.dumps(line)

    assert check([f"{one}\n".encode() for one in lines]).verdict in {"broken", "intact"}


@QUICK
@given(st.data())
def test_any_value_anywhere_in_a_body_is_answered(data: st.DataObject) -> None:
    """Whatever JSON stands in the place of any value of a body, with an index or without, the copy is not intact."""
    records = ledger().records
    record = data.draw(st.sampled_from(records[:-2]))
    body = json.loads(record.text)
    path = data.draw(st.sampled_from([*places(body)]))
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    before, inner[path[-1]] = inner[path[-1]], data.draw(JSON)
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=data.draw(st.booleans()))
    lines = [text if one is record else one.text for one in records]

    report = check([f"{one}\n".encode(errors="surrogatepass") for one in lines])
    assert report.verdict == ("intact" if inner[path[-1]] == before and text == record.text else "broken")


@QUICK
@given(data=st.data())
def test_any_bytes_anywhere_in_a_file_are_answered(data: st.DataObject, tmp_path: Path) -> None:
    """Whatever is cut out of a file, put into it or flipped, there is an answer."""
    content = b"".join(f"{record.line()}\n".encode() for record in ledger().records)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        end = at + data.draw(st.sampled_from([0, 1, 2, 100, 5_000]))
        content = content[:at] + data.draw(st.binary(max_size=6)) + content[end:]
    file = tmp_path / "audit.jsonl"
    file.write_bytes(content)

    assert verify(read_copy([file]), public_keys=[KEY.public_key()]).verdict in {"intact", "broken", "not_checked"}


@QUICK
@given(st.lists(JSON, max_size=3), st.sampled_from([None, 1]))
def test_any_json_is_answered(values: list[Any], indent: int | None) -> None:
    """Whatever JSON a file holds, on a line or over several, there is an answer."""
    lines = "\n".join(json.dumps(value, indent=indent) for value in values) + "\n"

    assert check([line.encode() + b"\n" for line in lines.split("\n")]).verdict != "intact"
