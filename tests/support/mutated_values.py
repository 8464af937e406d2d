"""Changes decoded JSON at random: other values, other members, another order.

Each change takes the source of chance and an object, which it changes in place.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any, Final

ValueChange = Callable[[Random, dict[str, Any]], None]
Path = tuple[Any, ...]

_VALUES: Final[tuple[Any, ...]] = (
    *("", "other", "é", "😀", '"\\\n\u0000\u2028', "\ud800", "default", "success", "failure", "error", "unknown", "1"),
    *("0" * 32, "0" * 16, "1" * 17, "A" * 32, "2026-01-01T00:00:00.000000000Z", "2026-02-30T00:00:00.000000000Z"),
    *("2026-01-01T00:00:00.00000000٠Z", "['a']", "True", "None", "x" * 2_000, "audit.checkpoint", "audit.key.rotate"),
    *(0, 1, -1, 2, 255, 256, 2**53 - 1, 2**53, -(2**53), 2**63, 2**64, True, False, None, 1.0, 1.5, -0.0),
    *([], ["a"], [1, True], [None], [["a"]], {}, {"a": 1}, {"from": 1}, {"s": {"to": 1}}, {"s": {"to": 1, "x": 2}}),
    *({"s": {"from": [1, "é", True], "to": {"deep": [-5, "y"]}}}, {"s": {"to": {"a": {"b": 1}}}}, {"s": {}}, {"s": 1}),
    *({"\U0001f600": {"to": 1}, "\uff5e": {"to": 2}}, {"s": {"to": 2**53}}, {"s": {"to": 1.5}}, {"s": {"to": None}}),
    *({"stringValue": "1"}, {"intValue": "1"}, {"intValue": 1}, {"intValue": "01"}, {"boolValue": True}),
    *({"arrayValue": {"values": [{"stringValue": "a"}]}}, {"kvlistValue": {"values": []}}, {"bytesValue": "YQ=="}),
)
_NAMES: Final = (
    *("error.type", "url.path", "audit.made.up", "auditrace.made.up", "own.attribute", "audit.integrity.value", ""),
    *("audit.integrity.hash", "auditrace.checkpoint.number", "auditrace.checkpoint.tips", "auditrace.truncated"),
    *("\U0001f600", "auditrace.reason", "audit_record_id", "AUDIT.ACTION", "audit.action "),
    *("http.response.status_code", "é", '"'),
)
_IDS: Final = ("", "x", "é", "019B76DA-0000-7000-8000-000000000001", "019b76da-0000-7000-8000-0000000000ff", 1)
_TIMES: Final = (
    *("2026-01-01T00:00:00.00000000Z", "2026-01-01T00:00:00.000000000+00:00", "2026-02-30T00:00:00.000000000Z"),
    *("0000-01-01T00:00:00.000000000Z", "9999-12-31T23:59:60.000000000Z", "2026-01-01t00:00:00.000000000Z", ""),
    *("1970-01-01T00:00:00.000000000Z", "1969-12-31T23:59:59.999999999Z", "2026-01-01T00:00:00.00000000\u0660Z"),
)
_CHANGES: Final = (
    *({"\U0001f600": {"to": 1}, "\uff5e": {"to": 2}}, {"s": {"to": {"\U0001f600": 1, "\uff5e": 2}}}),
    *({"s": {"to": 1, "x": 2}}, {"s": {"to": 2**53}}, {"s": {"to": 1.5}}, {"s": {"to": None}}, {"s": 1}),
    *({"s": {"from": "\n", "to": '"'}}, {}, [], "", {"s": {"to": {"a": {"b": 1}}}}, {"s": {"to": [[1]]}}),
    *({"s": {"from": True, "to": 1}}, {"": {}}, {"s": {"FROM": 1}}),
)
_RESOURCES: Final = (
    *({}, {"service.name": ""}, {"service.name": 1}, {"service.name": None}),
    {"\U0001f600": "a", "\uff5e": "b"},
)
# What a forger would put, who knows the format: members of the body or its attributes, some of them together.
_FORGED: Final[tuple[tuple[tuple[str, ...], tuple[Any, ...]], ...]] = (
    (("trace_flags",), (0, 1, 2, 255, 256, 257, -1, 2**31)),
    (("trace_id",), ("0" * 32, "A" * 32, "g" * 32, "1" * 31, "1" * 33, "")),
    (("span_id",), ("0" * 16, "A" * 16, "1" * 15, "1" * 17, "")),
    (("trace_id", "span_id"), (("1" * 31, "1" * 17), ("1" * 33, "1" * 15), ("1" * 32, "1" * 16))),
    (("timestamp",), _TIMES),
    (("observed_timestamp",), _TIMES),
    (("event_name",), ("audit.checkpoint", "audit.key.rotate", "audit.stream.close", "job.create", "invoice.paid", "")),
    (("resource",), _RESOURCES),
    (("audit.schema.version",), ("1.0.0", "1.1.0", "1.2.0", "")),
    (("audit.record.id",), _IDS),
    (("audit.record.id", "log.record.uid"), tuple((one, one) for one in _IDS)),
    (("audit.sequence.stream_id",), _IDS),
    (("audit.sequence.number",), (0, -1, 1, 2, 2**53 - 1, 2**53, 2**64, True, "1", 1.0)),
    (("audit.sequence.prev_hash",), ("", "a" * 64, "A" * 64, "a" * 63, "é", 1)),
    (("audit.sequence.prev_record_id",), _IDS),
    (("audit.outcome",), ("success", "failure", "unknown", "other", "")),
    (("auditrace.result",), ("success", "noop", "denied", "rejected", "error", "unknown", "other")),
    (("audit.actor.type",), ("user", "service", "system", "other")),
    (("audit.target.type",), ("job", "key", "other")),
    (("auditrace.target.version",), (2**53 - 1, 2**53, -(2**53) + 1, -(2**53), 1.0, True, "3")),
    (("auditrace.truncated",), ([], ["a"], ["a", "b"], [1], "a", "['a']", ["'"])),
    (("auditrace.changes",), _CHANGES),
    (("auditrace.reason",), ('"', "\\", "\n", "\x00", "\x7f", "\u2028", "%s", "é", "\U0001f600", "\ud800", "")),
)


def forged(draw: Random, body: dict[str, Any]) -> None:
    """A body has another value where the format has a rule."""
    names, values = draw.choice(_FORGED)
    value = copy.deepcopy(draw.choice(values))
    for name, one in zip(names, value if len(names) > 1 else (value,), strict=True):
        holder = body.get("attributes") if "." in name else body
        if isinstance(holder, dict):
            holder[name] = one


def retyped(draw: Random, log_record: dict[str, Any]) -> None:
    """A value of an index says the same in another type, or in another spelling."""
    attributes = log_record.get("attributes")
    pairs = [pair for pair in attributes if _is_valued(pair)] if isinstance(attributes, list) else []
    if not pairs:
        return
    pair = draw.choice([one for one in pairs if "stringValue" not in one["value"]] or pairs)
    (known,) = list(pair["value"].values())[:1] or [""]
    plain = str(known)
    if isinstance(known, dict) and isinstance(known.get("values"), list):
        members = [one.get("stringValue") if isinstance(one, dict) else one for one in known["values"]]
        plain = draw.choice((str(members), json.dumps(members)))
    spelled = draw.choice((*[plain] * 5, f"0{plain}", f"+{plain}", f" {plain}", f"{plain}.0", f"{plain}e0"))
    kind = draw.choice((*["stringValue"] * 4, "intValue", "boolValue", "doubleValue", "bytesValue"))
    both = pair["value"] if draw.random() < 0.2 else {}
    is_bare = draw.random() < 0.2 and isinstance(known, str) and known.isascii() and known.isdigit()
    pair["value"] = {**both, kind: int(known) if is_bare else spelled}


def _is_valued(pair: Any) -> bool:
    return isinstance(pair, dict) and isinstance(pair.get("value"), dict)


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the paths of all values within a value, its own aside."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield (*path, key)
        yield from paths(member, (*path, key))


def _picked(draw: Random, value: dict[str, Any]) -> tuple[Any, Any]:
    """Return a container within a value, or itself, and a key or position in it."""
    *before, last = draw.choice(list(paths(value)))
    for key in before:
        value = value[key]
    return value, last


def value_replaced(draw: Random, value: dict[str, Any]) -> None:
    """A value is another one, of the same type or not."""
    container, key = _picked(draw, value)
    container[key] = copy.deepcopy(draw.choice(_VALUES))


def value_altered(draw: Random, value: dict[str, Any]) -> None:
    """A value is nearly the same."""
    container, key = _picked(draw, value)
    match container[key]:
        case bool(known):
            container[key] = draw.choice((not known, int(known), str(known).lower()))
        case int(known):
            container[key] = draw.choice((known + 1, known - 1, -known, known * 10, str(known), float(known)))
        case str(known) if known:
            at = draw.randrange(len(known))
            other = draw.choice(("0", "f", "x", "Z", "", known[at].upper(), known[at - 1], chr(ord(known[at]) + 1)))
            container[key] = draw.choice((known[:at] + other + known[at + 1 :], known.upper(), known + " ", [known]))
        case list(known):
            draw.shuffle(known)
            container[key] = draw.choice((known, known[:-1], known * 2, str(known)))
        case known:
            container[key] = [known]


def member_removed(draw: Random, value: dict[str, Any]) -> None:
    """A member is missing."""
    container, key = _picked(draw, value)
    del container[key]


def member_renamed(draw: Random, value: dict[str, Any]) -> None:
    """A member has another name."""
    container, key = _picked(draw, value)
    if isinstance(container, dict):
        names = (*_NAMES, key.upper(), f"{key}x", key[:-1], key.replace(".", "_"))
        container[draw.choice(names)] = container.pop(key)


def member_added(draw: Random, value: dict[str, Any]) -> None:
    """There is a member more."""
    container, _ = _picked(draw, value)
    if isinstance(container, dict):
        container[draw.choice(_NAMES)] = copy.deepcopy(draw.choice(_VALUES))
    else:
        container.insert(draw.randint(0, len(container)), copy.deepcopy(draw.choice((*_VALUES, *container))))


def values_swapped(draw: Random, value: dict[str, Any]) -> None:
    """Two values stand in each other's place: neighbours, or any two, within one object or not."""
    container, key = _picked(draw, value)
    others = [(container, other) for other in (container if isinstance(container, dict) else range(len(container)))]
    second, other = draw.choice(others) if draw.random() < 0.7 else _picked(draw, value)
    container[key], second[other] = copy.deepcopy(second[other]), copy.deepcopy(container[key])


def value_copied(draw: Random, value: dict[str, Any]) -> None:
    """A value stands in the place of another one too."""
    container, key = _picked(draw, value)
    source, other = _picked(draw, value)
    container[key] = copy.deepcopy(source[other])


def members_reordered(draw: Random, value: dict[str, Any]) -> None:
    """The members of an object, or of an array, come in another order."""
    container, _ = _picked(draw, value)
    if isinstance(container, dict):
        members = list(container.items())
        draw.shuffle(members)
        container.clear()
        container.update(members)
    else:
        draw.shuffle(container)


VALUE_CHANGES: Final[Mapping[str, ValueChange]] = {
    "a value replaced": value_replaced,
    "a value altered": value_altered,
    "a member removed": member_removed,
    "a member renamed": member_renamed,
    "a member added": member_added,
    "two values swapped": values_swapped,
    "a value copied over another": value_copied,
    "members reordered": members_reordered,
}
