"""Ways to weaken the fast path of the verification, each as one change of its source: what a careless edit would do."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from telemetry.audit.verify.record import fast_index, fast_path


class Weakening(NamedTuple):
    """What the fast path does not check any more: the text in its source, and the text in its place."""

    module: ModuleType
    text: str
    other: str


WEAKENINGS: Final = {
    "a body need not be canonical": Weakening(fast_path, "_ENCODER.encode(body) != encoded or ", ""),
    "names beyond the basic plane are in any order": Weakening(
        fast_path, "(not text.isascii() and _has_name_beyond_basic_plane(text))", "False"
    ),
    "integers are of any size": Weakening(fast_path, "Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]", "int"),
    "numbers begin at zero": Weakening(fast_path, "Meta(ge=1,", "Meta(ge=0,"),
    "flags are of any size": Weakening(fast_path, "Annotated[int, Meta(ge=0, le=W3C_FLAGS)]", "int"),
    "changes may have further members": Weakening(
        fast_path,
        "    after: _Value | UnsetType = UNSET",
        "    after: _Value | UnsetType = UNSET\n    x: int | UnsetType = UNSET",
    ),
    "a record may have an empty id": Weakening(fast_path, "or not record_id\n", ""),
    "a record may be of an empty stream": Weakening(fast_path, "or not stream_id\n", ""),
    "the two record ids may differ": Weakening(fast_path, "or uid != record_id\n", ""),
    "the result need not go with the outcome": Weakening(fast_path, "or OUTCOMES[result] != outcome\n", ""),
    "no version needs more": Weakening(fast_path, "version != FIRST_VERSION and UNSET in since", "False"),
    "rotations are taken like other records": Weakening(fast_path, "or body.event_name in _NOT_COVERED\n", ""),
    "ids have any form": Weakening(fast_path, "or _IDS.fullmatch(body.trace_id + body.span_id) is None\n", ""),
    "a digit may be moved from one id to the other": Weakening(
        fast_path, "or len(body.span_id) != _SPAN_ID_DIGITS\n", ""
    ),
    "the previous hash is not kept": Weakening(fast_path, "None if prev_hash is UNSET else prev_hash", "None"),
    "the index may name another hash": Weakening(
        fast_path, "own.pop(names.AUDIT_INTEGRITY_HASH, None) == self.hash", "own.pop(names.AUDIT_INTEGRITY_HASH, 1)"
    ),
    "the index may have any event name": Weakening(fast_path, 'index.event_name in (body.event_name, "")', "True"),
    "the index may have any trace": Weakening(fast_path, 'index.trace_id in (body.trace_id, "")', "True"),
    "the index may have any span": Weakening(fast_path, 'index.span_id in (body.span_id, "")', "True"),
    "the index may have any flags": Weakening(fast_path, "index.flags & W3C_FLAGS == body.trace_flags", "True"),
    "the index may have any time": Weakening(fast_path, "index.time_unix_nano in (self.timestamp_ns, 0)", "True"),
    "the index may have any observed time": Weakening(
        fast_path, "index.observed_time_unix_nano in (self.observed_ns, 0)", "True"
    ),
    "the index may have any severity": Weakening(
        fast_path, "index.severity_number in (", "True or index.severity_number in ("
    ),
    "the index may have any resource": Weakening(fast_path, "body.resource.items() <= index.resource.items()", "True"),
    "lists are written as texts": Weakening(
        fast_index, '"changes": _CUT', '"changes": _CUT, "string[]": f\'{{"stringValue":"{_GAP}"}}\''
    ),
    "texts may need escapes": Weakening(fast_index, 'body.count(b"\\\\") != canonical.count(b"\\\\")', "False"),
    "integers are written as texts": Weakening(fast_index, '{{"intValue":', '{{"stringValue":'),
    "any hash will do": Weakening(fast_index, "attributes), record_hash", "attributes), encoded[-68:-4].decode()"),
    "any changes will do": Weakening(
        fast_index, "_SORTED.encode(value_of(encoded)) == changes", "bool(value_of(encoded))"
    ),
    "what is behind the changes is not compared": Weakening(fast_index, "encoded.endswith(behind)", "True"),
    "what is before the changes is not compared": Weakening(fast_index, "encoded.startswith(before)", "True"),
}


def weakened(weakening: Weakening, folder: Path) -> ModuleType:
    """Return the fast path with a weakening, apart from the one that is imported."""
    source = Path(str(weakening.module.__file__)).read_text(encoding="utf-8")
    if source.count(weakening.text) != 1:
        raise AssertionError(f"not once in {weakening.module.__name__}: {weakening.text}")
    file = folder / "weakened.py"
    file.write_text(source.replace(weakening.text, weakening.other), encoding="utf-8")
    changed = _loaded(file)
    if weakening.module is fast_path:
        return changed
    whole = _loaded(Path(fast_path.__file__))
    whole.__dict__["is_text_of"] = changed.is_text_of
    return whole


def _loaded(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("weakened", file)
    if spec is None or spec.loader is None:
        raise AssertionError(file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
