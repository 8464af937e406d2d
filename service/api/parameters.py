"""The parameters of an operation as the OpenAPI document shows them: what routes declare, completed and cleared."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from service.api.fields import REQUEST_ID, UUID

# What the filters of jobs and records mean; which values they take is declared where they are read.
_FILTERS: Final = {
    "status": "The state that the jobs are in.",
    "template": "The template that the jobs are made from.",
    "created_by": "The actor that created the jobs.",
    "actor_id": "The actor that acted.",
    "action": "What was done.",
    "event_name": "What took place.",
    "outcome": "How it ended.",
    "result": "How it ended, by cause.",
    "target_type": "The kind of what was acted upon.",
    "target_id": "What was acted upon.",
    "trace_id": "The trace in which it took place.",
    "span_id": "The span in which it took place.",
    "job_id": "The job that it belongs to.",
    "stream_id": "The stream in which the records stand.",
    "request_id": "The request that caused it.",
    "tenant_id": "The tenant; no other than that of the credential.",
    "since": "Observed at this time or later.",
    "until": "Observed before this time.",
}
_FORMS: Final[Mapping[str, Mapping[str, Any]]] = {"job_id": UUID, "stream_id": UUID}


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    schema = {"type": "string", **schema}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def parameters_of(operation: Mapping[str, Any], schemas: Mapping[str, Any], method: str) -> list[dict[str, Any]]:
    """Return the parameters of an operation, those that every request may have included.

    Args:
        operation: as Litestar describes it.
        schemas: the components to which it refers.
        method: in lower case.
    """
    described = [_described(raw, schemas) for raw in operation.get("parameters", ())]
    return [*described, *_headers(method)]


def _headers(method: str) -> Iterator[dict[str, Any]]:
    if method == "post":
        text = "The same key and request again is answered, and not done again: for 24 hours, per actor and route."
        yield _header("Idempotency-Key", text, pattern="^[ -~]{1,255}$", minLength=1, maxLength=255)
    yield _header("X-Request-Id", "Kept when it has this form, else replaced.", **REQUEST_ID)
    yield _header(
        "traceparent",
        "Continues the trace of the caller (W3C Trace Context).",
        pattern="^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.*$",
    )


def _described(raw: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    schema = _cleared(raw["schema"], schemas)
    about = schema.pop("description", None)
    is_filter = raw["in"] == "query"
    texts = (_FILTERS.get(raw["name"]) if is_filter else None, raw.get("description") or about)
    return {
        "name": raw["name"],
        "in": raw["in"],
        "required": raw["required"],
        "description": " ".join(dict.fromkeys(text for text in texts if text)),
        "schema": {**(_FORMS.get(raw["name"], {}) if is_filter else {}), **schema},
    }


def _cleared(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without references and null: an absent parameter is absent, and never null."""
    cleared: dict[str, Any] = {
        name: int(value) if isinstance(value, float) else value for name, value in schema.items()
    }
    reference = cleared.pop("$ref", None)
    if reference is not None:
        cleared = {**schemas[reference.rpartition("/")[2]], **cleared}
    for keyword in ("oneOf", "allOf"):
        for part in cleared.pop(keyword, ()):
            if part != {"type": "null"}:
                cleared = {**_cleared(part, schemas), **cleared}
    return {name: value for name, value in cleared.items() if value is not None}
