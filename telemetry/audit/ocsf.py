"""Translates an audit record to an event of the Open Cybersecurity Schema Framework, for tools that collect those.

The class is API Activity (6003), with the profile `trace`. `raw_data` holds the record itself, byte for byte: these are
the bytes that were hashed, and the mapping loses nothing. docs/correlation.md has the mapping as a table.

Source: schema.ocsf.io, version 1.8.0; a test validates events of every kind against the published schema.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from telemetry import names
from telemetry.audit.record import SCHEMA_VERSION
from telemetry.audit.verify.read.json_types import is_object
from telemetry.audit.verify.record.body import nanoseconds

OCSF_VERSION: Final = "1.8.0"
CLASS_UID: Final = 6003

_NS_PER_MS: Final = 1_000_000
_OTHER: Final = 99
_ACTIVITIES: Final = {"CREATE": 1, "READ": 2, "EXPORT": 2, "UPDATE": 3, "DELETE": 4}
_CAPTIONS: Final = {1: "Create", 2: "Read", 3: "Update", 4: "Delete"}
_STATUSES: Final = {"success": (1, "Success"), "failure": (2, "Failure")}
_UNKNOWN_STATUS: Final = (0, "Unknown")
_ACTOR_TYPES: Final = {"user": 1, "system": 3, "service": 4}
# Informational, Low, Medium: a refused attempt did no harm, but an error needs attention.
_SEVERITIES: Final = {"success": 1, "noop": 1, "error": 3}
_LOW: Final = 2
_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
"""The methods of the schema; any other method is put under `unmapped`."""
_IP: Final = frozenset({"ipv4", "ipv6"})

MAPPED: Final = frozenset(
    {
        names.AUDIT_SCHEMA_VERSION,
        names.AUDIT_RECORD_ID,
        names.LOG_RECORD_UID,
        names.AUDIT_ACTOR_ID,
        names.AUDIT_ACTOR_TYPE,
        names.AUDIT_ACTION,
        names.AUDIT_OUTCOME,
        names.AUDITRACE_RESULT,
        names.AUDITRACE_INITIATOR_ID,
        names.AUDITRACE_INITIATOR_TYPE,
        names.AUDIT_TARGET_TYPE,
        names.AUDIT_TARGET_ID,
        names.AUDITRACE_TARGET_VERSION,
        names.AUDIT_SOURCE_TYPE,
        names.AUDIT_SOURCE_ID,
        names.AUDIT_SEQUENCE_NUMBER,
        names.AUDITRACE_TENANT_ID,
        names.AUDITRACE_REQUEST_ID,
        names.AUDITRACE_REASON,
        names.ERROR_TYPE,
        names.HTTP_REQUEST_METHOD,
        names.HTTP_RESPONSE_STATUS_CODE,
        names.URL_PATH,
        names.USER_AGENT_ORIGINAL,
    }
)
"""The attributes that have their own member; all others are put under `unmapped` by their names.

The type of an actor that acted for an initiator is put there, too: OCSF has types of users only.
"""


class _Body(msgspec.Struct, frozen=True):
    """The members of a body, all of which an event needs (docs/audit-format.md, section 1)."""

    timestamp: str
    observed_timestamp: str
    event_name: str
    trace_id: str
    span_id: str
    trace_flags: int
    resource: dict[str, Any]
    attributes: dict[str, Any]


_DECODER: Final = msgspec.json.Decoder(_Body)


def ocsf_event(body: str) -> dict[str, object]:
    """Return the event of a record, given its canonical text.

    Raises:
        msgspec.DecodeError: the text is not the body of a record.
    """
    record = _DECODER.decode(body)
    attributes = record.attributes
    action = str(attributes[names.AUDIT_ACTION])
    activity = _ACTIVITIES.get(action, _OTHER)
    result = str(attributes[names.AUDITRACE_RESULT])
    status_id, status = _STATUSES.get(attributes[names.AUDIT_OUTCOME], _UNKNOWN_STATUS)
    return _known(
        {
            "category_uid": CLASS_UID // 1000,
            "category_name": "Application Activity",
            "class_uid": CLASS_UID,
            "class_name": "API Activity",
            "activity_id": activity,
            "activity_name": _CAPTIONS.get(activity, action),
            "type_uid": CLASS_UID * 100 + activity,
            "type_name": f"API Activity: {_CAPTIONS.get(activity, 'Other')}",
            "time": _milliseconds(record.timestamp),
            "severity_id": _SEVERITIES.get(result, _LOW),
            "status_id": status_id,
            "status": status,
            "status_code": result,
            "status_detail": attributes.get(names.AUDITRACE_REASON),
            "message": f"{record.event_name} of {attributes[names.AUDIT_TARGET_TYPE]} by "
            f"{attributes[names.AUDIT_ACTOR_ID]}{_for_whom(attributes)}: {result}",
            "actor": _actor(attributes),
            "api": _api(record),
            "http_request": _http_request(attributes),
            "src_endpoint": _source(record),
            "resources": [_known(_target(attributes))],
            "trace": {"uid": record.trace_id},
            "metadata": _metadata(record),
            "raw_data": body,
            "unmapped": {
                **{key: value for key, value in attributes.items() if not _has_place(key, value, attributes)},
                # A span of OCSF has a beginning and an end, and a record holds neither.
                "span_id": record.span_id,
                "trace_flags": record.trace_flags,
                "resource": record.resource,
            },
        }
    )


def _has_place(key: str, value: object, attributes: Mapping[str, Any]) -> bool:
    if key == names.AUDIT_ACTOR_TYPE:
        return names.AUDITRACE_INITIATOR_ID not in attributes
    return key in MAPPED and (key != names.HTTP_REQUEST_METHOD or value in _METHODS)


def _actor(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user who initiated the activity, and for an act of a worker the application that did it for them."""
    initiator = attributes.get(names.AUDITRACE_INITIATOR_ID)
    if initiator is None:
        return {"user": _user(attributes[names.AUDIT_ACTOR_ID], attributes[names.AUDIT_ACTOR_TYPE])}
    user = _user(initiator, attributes.get(names.AUDITRACE_INITIATOR_TYPE))
    return {"user": user, "app_uid": attributes[names.AUDIT_ACTOR_ID]}


def _user(uid: str, kind: str | None) -> dict[str, Any]:
    return {"uid": uid, "type": kind, "type_id": None if kind is None else _ACTOR_TYPES[kind]}


def _for_whom(attributes: Mapping[str, Any]) -> str:
    initiator = attributes.get(names.AUDITRACE_INITIATOR_ID)
    return "" if initiator is None else f" for {initiator}"


def _api(record: _Body) -> dict[str, Any]:
    attributes, resource = record.attributes, record.resource
    request_id = attributes.get(names.AUDITRACE_REQUEST_ID)
    response = {
        "code": attributes.get(names.HTTP_RESPONSE_STATUS_CODE),
        "error": attributes.get(names.ERROR_TYPE),
        # Without an error the reason is what a person gave for the act.
        "error_message": attributes.get(names.AUDITRACE_REASON) if names.ERROR_TYPE in attributes else None,
    }
    return {
        "operation": record.event_name,
        "request": None if request_id is None else {"uid": request_id},
        "response": response if any(value is not None for value in response.values()) else None,
        "service": {"name": _service(record), "version": resource.get(names.SERVICE_VERSION)},
    }


def _service(record: _Body) -> str:
    # Other services send records too. In OpenTelemetry, a service without a name has this name.
    return str(record.resource.get(names.SERVICE_NAME, "unknown_service"))


def _http_request(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    method, path = attributes.get(names.HTTP_REQUEST_METHOD), attributes.get(names.URL_PATH)
    agent = attributes.get(names.USER_AGENT_ORIGINAL)
    if method is None and path is None and agent is None:
        return None
    return {
        "http_method": method if method in _METHODS else None,
        "user_agent": agent,
        "url": None if path is None else {"path": path},
    }


def _source(record: _Body) -> dict[str, Any]:
    """Return the source of the request; for an action without a request, the process."""
    attributes = record.attributes
    source = attributes.get(names.AUDIT_SOURCE_ID)
    if source is not None and attributes.get(names.AUDIT_SOURCE_TYPE) in _IP:
        return {"ip": source}
    if source is not None:
        # Not `hostname`, because the value was not checked to be one.
        return {"name": source}
    return {"svc_name": _service(record), "instance_uid": record.resource.get(names.SERVICE_INSTANCE_ID)}


def _target(attributes: Mapping[str, Any]) -> dict[str, Any]:
    version = attributes.get(names.AUDITRACE_TARGET_VERSION)
    return {
        "uid": attributes[names.AUDIT_TARGET_ID],
        "type": attributes[names.AUDIT_TARGET_TYPE],
        "version": None if version is None else str(version),
    }


def _metadata(record: _Body) -> dict[str, Any]:
    attributes = record.attributes
    return {
        "version": OCSF_VERSION,
        "profiles": ["trace"],
        "product": {
            "name": "auditrace",
            "vendor_name": "auditrace",
            "version": record.resource.get(names.SERVICE_VERSION),
        },
        "uid": attributes[names.AUDIT_RECORD_ID],
        "event_code": record.event_name,
        "sequence": attributes[names.AUDIT_SEQUENCE_NUMBER],
        "tenant_uid": attributes[names.AUDITRACE_TENANT_ID],
        "correlation_uid": attributes.get(names.AUDITRACE_REQUEST_ID),
        "original_time": record.timestamp,
        "logged_time": _milliseconds(record.observed_timestamp),
        "log_name": "auditrace.audit",
        "log_version": attributes.get(names.AUDIT_SCHEMA_VERSION, SCHEMA_VERSION),
    }


def _milliseconds(timestamp: str) -> int:
    found = nanoseconds(timestamp)
    if found is None:
        raise msgspec.ValidationError(f"{timestamp!r} is no timestamp of a record")
    return found // _NS_PER_MS


def _known(members: Mapping[str, object]) -> dict[str, object]:
    """Leave out members that are None, at any depth. A body holds no None, so nothing of the record is left out."""
    return {key: _known(value) if is_object(value) else value for key, value in members.items() if value is not None}
