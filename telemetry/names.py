"""Every name that leaves the process, as constants; generated from `telemetry/registry/`, not edited."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# Attributes
AUDIT_SCHEMA_VERSION: Final = "audit.schema.version"
AUDIT_RECORD_ID: Final = "audit.record.id"
LOG_RECORD_UID: Final = "log.record.uid"
AUDIT_ACTOR_ID: Final = "audit.actor.id"
AUDIT_ACTOR_TYPE: Final = "audit.actor.type"
AUDITRACE_ACTOR_ISSUER: Final = "auditrace.actor.issuer"
AUDITRACE_CREDENTIAL_ID: Final = "auditrace.credential.id"
AUDITRACE_ACTOR_PERSON: Final = "auditrace.actor.person"
AUDITRACE_ACTOR_LOGIN_ID: Final = "auditrace.actor.login.id"
AUDITRACE_ACTOR_SUDO_ID: Final = "auditrace.actor.sudo.id"
HOST_NAME: Final = "host.name"
PROCESS_OWNER: Final = "process.owner"
PROCESS_COMMAND_ARGS: Final = "process.command_args"
AUDIT_ACTION: Final = "audit.action"
AUDIT_OUTCOME: Final = "audit.outcome"
AUDITRACE_RESULT: Final = "auditrace.result"
AUDIT_TARGET_TYPE: Final = "audit.target.type"
AUDIT_TARGET_ID: Final = "audit.target.id"
AUDITRACE_TARGET_VERSION: Final = "auditrace.target.version"
AUDIT_SOURCE_TYPE: Final = "audit.source.type"
AUDIT_SOURCE_ID: Final = "audit.source.id"
CLIENT_ADDRESS: Final = "client.address"
NETWORK_PEER_ADDRESS: Final = "network.peer.address"
AUDIT_SEQUENCE_STREAM_ID: Final = "audit.sequence.stream_id"
AUDIT_SEQUENCE_NUMBER: Final = "audit.sequence.number"
AUDIT_SEQUENCE_PREV_HASH: Final = "audit.sequence.prev_hash"
AUDIT_SEQUENCE_PREV_RECORD_ID: Final = "audit.sequence.prev_record_id"
AUDITRACE_TENANT_ID: Final = "auditrace.tenant.id"
AUDITRACE_REQUEST_ID: Final = "auditrace.request.id"
AUDITRACE_INITIATOR_ID: Final = "auditrace.initiator.id"
AUDITRACE_INITIATOR_TYPE: Final = "auditrace.initiator.type"
AUDITRACE_INITIATOR_ISSUER: Final = "auditrace.initiator.issuer"
AUDITRACE_INITIATOR_RECORD_ID: Final = "auditrace.initiator.record_id"
AUDITRACE_SOURCE: Final = "auditrace.source"
AUDITRACE_CHANGES: Final = "auditrace.changes"
AUDITRACE_REASON: Final = "auditrace.reason"
AUDITRACE_NOTES: Final = "auditrace.notes"
ERROR_TYPE: Final = "error.type"
AUDITRACE_JOB_ID: Final = "auditrace.job.id"
AUDITRACE_JOB_TEMPLATE: Final = "auditrace.job.template"
AUDITRACE_JOB_RUN: Final = "auditrace.job.run"
AUDITRACE_RUN_ISOLATION: Final = "auditrace.run.isolation"
AUDITRACE_JOB_PLAN_SHA256: Final = "auditrace.job.plan.sha256"
AUDITRACE_JOB_PLAN: Final = "auditrace.job.plan"
AUDITRACE_IDEMPOTENCY_KEY_HASH: Final = "auditrace.idempotency.key.hash"
AUDITRACE_TRUNCATED: Final = "auditrace.truncated"
USER_AGENT_ORIGINAL: Final = "user_agent.original"
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
URL_PATH: Final = "url.path"
AUDITRACE_CHECKPOINT_NUMBER: Final = "auditrace.checkpoint.number"
AUDITRACE_CHECKPOINT_PREV_NUMBER: Final = "auditrace.checkpoint.prev_number"
AUDITRACE_CHECKPOINT_PREV_HASH: Final = "auditrace.checkpoint.prev_hash"
AUDITRACE_CHECKPOINT_PREV_SIGNATURE: Final = "auditrace.checkpoint.prev_signature"
AUDITRACE_CHECKPOINT_TIPS: Final = "auditrace.checkpoint.tips"
AUDITRACE_CHECKPOINT_STREAMS: Final = "auditrace.checkpoint.streams"
AUDITRACE_CHECKPOINT_RECORDS: Final = "auditrace.checkpoint.records"
AUDIT_INTEGRITY_HASH: Final = "audit.integrity.hash"
AUDIT_INTEGRITY_VALUE: Final = "audit.integrity.value"
AUDIT_INTEGRITY_ALGORITHM: Final = "audit.integrity.algorithm"
AUDIT_INTEGRITY_CERTIFICATE: Final = "audit.integrity.certificate"
AUDIT_RECORDED: Final = "audit.recorded"
AUDITRACE_JOB_STATUS: Final = "auditrace.job.status"
AUDITRACE_LIMIT: Final = "auditrace.limit"
AUDITRACE_WEBHOOK_NAME: Final = "auditrace.webhook.name"
SERVICE_NAME: Final = "service.name"
SERVICE_NAMESPACE: Final = "service.namespace"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
SERVICE_VERSION: Final = "service.version"
DEPLOYMENT_ENVIRONMENT_NAME: Final = "deployment.environment.name"
MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_DESTINATION_NAME: Final = "messaging.destination.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
MESSAGING_MESSAGE_ID: Final = "messaging.message.id"
PROCESS_EXIT_CODE: Final = "process.exit.code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
URL_SCHEME: Final = "url.scheme"
NETWORK_PROTOCOL_VERSION: Final = "network.protocol.version"
HTTP_REQUEST_METHOD_ORIGINAL: Final = "http.request.method_original"
CODE_FILE_PATH: Final = "code.file.path"
CODE_FUNCTION_NAME: Final = "code.function.name"
CODE_LINE_NUMBER: Final = "code.line.number"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

# Events
EVENT_JOB_CREATE: Final = "job.create"
EVENT_JOB_DRAFT: Final = "job.draft"
EVENT_JOB_CONFIRM: Final = "job.confirm"
EVENT_JOB_REJECT: Final = "job.reject"
EVENT_JOB_RUN_TRIGGER: Final = "job.run.trigger"
EVENT_JOB_RETRY: Final = "job.retry"
EVENT_JOB_CANCEL: Final = "job.cancel"
EVENT_JOB_STATUS_TRANSITION: Final = "job.status.transition"
EVENT_INPUT_WRITE: Final = "input.write"
EVENT_ARTIFACT_READ: Final = "artifact.read"
EVENT_AUDIT_READ: Final = "audit.read"
EVENT_AUDIT_EXPORT: Final = "audit.export"
EVENT_AUDIT_VERIFY: Final = "audit.verify"
EVENT_AUTH_DENIED: Final = "auth.denied"
EVENT_REQUEST_THROTTLED: Final = "request.throttled"
EVENT_KEY_CREATE: Final = "key.create"
EVENT_KEY_REVOKE: Final = "key.revoke"
EVENT_KEY_ROTATE: Final = "key.rotate"
EVENT_KEY_ADOPT: Final = "key.adopt"
EVENT_AUDIT_CHECKPOINT: Final = "audit.checkpoint"
EVENT_AUDIT_STREAM_OPEN: Final = "audit.stream.open"
EVENT_AUDIT_STREAM_CLOSE: Final = "audit.stream.close"
EVENT_AUDIT_KEY_ROTATE: Final = "audit.key.rotate"
EVENT_AUDIT_RESTORE: Final = "audit.restore"
EVENT_AUDIT_REDELIVER: Final = "audit.redeliver"
EVENT_AUDIT_COPY: Final = "audit.copy"
EVENT_AUDIT_RETENTION: Final = "audit.retention"
EVENT_SERVICE_CONFIGURE: Final = "service.configure"

# Metrics
METRIC_AUDITRACE_AUDIT_RECORDS_COMMITTED: Final = "auditrace.audit.records.committed"
METRIC_AUDITRACE_AUDIT_RECORDS_DELIVERED: Final = "auditrace.audit.records.delivered"
METRIC_AUDITRACE_AUDIT_RECORDS_PARKED: Final = "auditrace.audit.records.parked"
METRIC_AUDITRACE_AUDIT_OUTBOX_DEPTH: Final = "auditrace.audit.outbox.depth"
METRIC_AUDITRACE_AUDIT_OUTBOX_AGE: Final = "auditrace.audit.outbox.age"
METRIC_AUDITRACE_AUDIT_OUTBOX_PARKED: Final = "auditrace.audit.outbox.parked"
METRIC_AUDITRACE_AUDIT_CHECKPOINT_NUMBER: Final = "auditrace.audit.checkpoint.number"
METRIC_AUDITRACE_AUDIT_CHECKPOINT_AGE: Final = "auditrace.audit.checkpoint.age"
METRIC_AUDITRACE_AUDIT_CHECKPOINT_REFUSED: Final = "auditrace.audit.checkpoint.refused"
METRIC_AUDITRACE_AUDIT_VERIFICATION_FINDINGS: Final = "auditrace.audit.verification.findings"
METRIC_AUDITRACE_AUDIT_VERIFICATION_AGE: Final = "auditrace.audit.verification.age"
METRIC_AUDITRACE_KEYS_UNCOVERED: Final = "auditrace.keys.uncovered"
METRIC_AUDITRACE_LEDGER_DISK_FREE: Final = "auditrace.ledger.disk.free"
METRIC_AUDITRACE_REQUESTS_REFUSED: Final = "auditrace.requests.refused"
METRIC_AUDITRACE_AUDIT_DELIVERY_DURATION: Final = "auditrace.audit.delivery.duration"
METRIC_AUDITRACE_WEBHOOK_DELIVERIES: Final = "auditrace.webhook.deliveries"
METRIC_AUDITRACE_WEBHOOK_LAG: Final = "auditrace.webhook.lag"
METRIC_AUDITRACE_WEBHOOK_AGE: Final = "auditrace.webhook.age"
METRIC_AUDITRACE_JOBS: Final = "auditrace.jobs"
METRIC_AUDITRACE_JOB_RUN_DURATION: Final = "auditrace.job.run.duration"
METRIC_AUDITRACE_JOB_RUN_REFUSED: Final = "auditrace.job.run.refused"
METRIC_AUDITRACE_CONNECTIONS_ENDED: Final = "auditrace.connections.ended"
METRIC_HTTP_SERVER_REQUEST_DURATION: Final = "http.server.request.duration"

# The action of each event of the catalogue.
ACTIONS: Final[Mapping[str, str]] = MappingProxyType({
    "job.create": "CREATE",
    "job.draft": "UPDATE",
    "job.confirm": "APPROVE",
    "job.reject": "REJECT",
    "job.run.trigger": "EXECUTE",
    "job.retry": "EXECUTE",
    "job.cancel": "CANCEL",
    "job.status.transition": "UPDATE",
    "input.write": "CREATE",
    "artifact.read": "READ",
    "audit.read": "READ",
    "audit.export": "EXPORT",
    "audit.verify": "READ",
    "auth.denied": "LOGIN",
    "request.throttled": "EXECUTE",
    "key.create": "CREATE",
    "key.revoke": "DELETE",
    "key.rotate": "UPDATE",
    "key.adopt": "UPDATE",
    "audit.checkpoint": "CHECKPOINT",
    "audit.stream.open": "CREATE",
    "audit.stream.close": "UPDATE",
    "audit.key.rotate": "UPDATE",
    "audit.restore": "UPDATE",
    "audit.redeliver": "UPDATE",
    "audit.copy": "EXPORT",
    "audit.retention": "DELETE",
    "service.configure": "UPDATE",
})

# The type of each attribute that the body of an audit record may hold.
BODY_ATTRIBUTES: Final[Mapping[str, str]] = MappingProxyType({
    "audit.schema.version": "string",
    "audit.record.id": "string",
    "log.record.uid": "string",
    "audit.actor.id": "string",
    "audit.actor.type": "string",
    "auditrace.actor.issuer": "string",
    "auditrace.credential.id": "string",
    "auditrace.actor.person": "string",
    "auditrace.actor.login.id": "string",
    "auditrace.actor.sudo.id": "string",
    "host.name": "string",
    "process.owner": "string",
    "process.command_args": "string[]",
    "audit.action": "string",
    "audit.outcome": "string",
    "auditrace.result": "string",
    "audit.target.type": "string",
    "audit.target.id": "string",
    "auditrace.target.version": "int",
    "audit.source.type": "string",
    "audit.source.id": "string",
    "client.address": "string",
    "network.peer.address": "string",
    "audit.sequence.stream_id": "string",
    "audit.sequence.number": "int",
    "audit.sequence.prev_hash": "string",
    "audit.sequence.prev_record_id": "string",
    "auditrace.tenant.id": "string",
    "auditrace.request.id": "string",
    "auditrace.initiator.id": "string",
    "auditrace.initiator.type": "string",
    "auditrace.initiator.issuer": "string",
    "auditrace.initiator.record_id": "string",
    "auditrace.source": "string",
    "auditrace.changes": "changes",
    "auditrace.reason": "string",
    "auditrace.notes": "string",
    "error.type": "string",
    "auditrace.job.id": "string",
    "auditrace.job.template": "string",
    "auditrace.job.run": "int",
    "auditrace.run.isolation": "string",
    "auditrace.job.plan.sha256": "string",
    "auditrace.job.plan": "string",
    "auditrace.idempotency.key.hash": "string",
    "auditrace.truncated": "string[]",
    "user_agent.original": "string",
    "http.request.method": "string",
    "http.route": "string",
    "http.response.status_code": "int",
    "url.path": "string",
    "auditrace.checkpoint.number": "int",
    "auditrace.checkpoint.prev_number": "int",
    "auditrace.checkpoint.prev_hash": "string",
    "auditrace.checkpoint.prev_signature": "string",
    "auditrace.checkpoint.tips": "tips",
    "auditrace.checkpoint.streams": "int",
    "auditrace.checkpoint.records": "int",
})

# The attributes that every audit record carries.
ALWAYS: Final[frozenset[str]] = frozenset({
    "audit.schema.version",
    "audit.record.id",
    "log.record.uid",
    "audit.actor.id",
    "audit.actor.type",
    "audit.action",
    "audit.outcome",
    "auditrace.result",
    "audit.target.type",
    "audit.target.id",
    "audit.sequence.stream_id",
    "audit.sequence.number",
    "auditrace.tenant.id",
    "auditrace.source",
})

# The attributes that every audit record carries, unless its format version is 1.0.0.
ALWAYS_BEYOND_1_0_0: Final[frozenset[str]] = frozenset({
    "auditrace.actor.issuer",
})

# The values of the attributes whose values are enumerated.
ATTRIBUTE_VALUES: Final[Mapping[str, frozenset[str]]] = MappingProxyType({
    "audit.actor.type": frozenset({"user", "service", "system"}),
    "audit.outcome": frozenset({"success", "failure", "unknown"}),
    "auditrace.result": frozenset({"success", "noop", "denied", "rejected", "error", "unknown"}),
    "audit.target.type": frozenset({"job", "artifact", "ledger", "key", "template", "http.endpoint", "service"}),
    "audit.source.type": frozenset({"ipv4", "ipv6", "hostname"}),
    "auditrace.initiator.type": frozenset({"user", "service", "system"}),
    "auditrace.source": frozenset({"api", "worker", "cli", "relay"}),
    "auditrace.run.isolation": frozenset({"bubblewrap", "uid", "none"}),
})

# Unit and description of each instrument.
METRICS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType({
    "auditrace.audit.records.committed": ("{record}", "Audit records committed to the ledger."),
    "auditrace.audit.records.delivered": ("{record}", "Audit records acknowledged in full by the sink."),
    "auditrace.audit.records.parked": ("{record}", "Audit records parked because the sink refuses them even alone."),
    "auditrace.audit.outbox.depth": ("{record}", "Committed records not yet delivered or parked."),
    "auditrace.audit.outbox.age": ("s", "Age of the oldest record not yet delivered or parked."),
    "auditrace.audit.outbox.parked": ("{record}", "Parked records that were not delivered later."),
    "auditrace.audit.checkpoint.number": ("{checkpoint}", "Number of the last checkpoint, whoever wrote it."),
    "auditrace.audit.checkpoint.age": ("s", "Age of the last checkpoint, whoever wrote it."),
    "auditrace.audit.checkpoint.refused": ("{stream}", "Streams that no checkpoint signs over."),
    "auditrace.audit.verification.findings": ("{finding}", "Findings in the own ledger that no later verification of the whole ledger has cleared."),
    "auditrace.audit.verification.age": ("s", "Time since a verification of the own ledger last completed."),
    "auditrace.keys.uncovered": ("{key}", "API keys that are refused because the ledger does not cover them."),
    "auditrace.ledger.disk.free": ("By", "Free space on the disk of the embedded database."),
    "auditrace.requests.refused": ("{request}", "Requests that were refused because they were over a limit."),
    "auditrace.audit.delivery.duration": ("s", "Duration of one delivery attempt."),
    "auditrace.webhook.deliveries": ("{delivery}", "Attempts to deliver a record to an endpoint of webhooks."),
    "auditrace.webhook.lag": ("{record}", "Committed records behind the cursors of an endpoint, also those that its filter does not match."),
    "auditrace.webhook.age": ("s", "Age of the oldest record behind the cursors of an endpoint."),
    "auditrace.jobs": ("{job}", "Jobs by status."),
    "auditrace.job.run.duration": ("s", "Duration of one run."),
    "auditrace.job.run.refused": ("{run}", "Runs that this process refused because the job is not what its records state."),
    "auditrace.connections.ended": ("{connection}", "Connections of clients that a limit refused or ended."),
    "http.server.request.duration": ("s", "Duration of HTTP requests; of server-sent events, up to the head of the answer."),
})
