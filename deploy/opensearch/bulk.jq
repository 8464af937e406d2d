# Makes a _bulk request of an archive's lines: for each record a document in the form of OpenSearch's Simple Schema for
# Observability, in the index of the record's month and under the record's id, so that it is never there twice. The
# body, which is what was hashed, stays the text that it is, byte for byte.
# What is no record is left out; `auditrace verify` over the archive names it.

def attribute($name): .attributes? | objects | .[$name] | strings;
def text: .value | to_entries[0].value | if type == "string" then . else tojson end;

fromjson? | .resourceLogs[]?
| (reduce .resource.attributes[]? as $one ({}; .[$one.key] = ($one | text))) as $resource
| .scopeLogs[]? | .scope as $scope | .logRecords[]?
# The body's own values: OTLP JSON makes texts of integers, and lists of objects.
| (.body.stringValue | fromjson? | objects) as $record
| ($record | attribute("audit.record.id")) as $id
| ($record.timestamp | strings | .[:7]) as $month
# These attributes alone are not in the body.
| (reduce (.attributes[]? | select(.key | startswith("audit.integrity."))) as $one ({}; .[$one.key] = ($one | text))) as $integrity
| {create: {_index: "ss4o_logs-auditrace-\($month)", _id: $id}},
  {
    "@timestamp": $record.timestamp,
    observedTimestamp: $record.observed_timestamp,
    traceId: $record.trace_id,
    spanId: $record.span_id,
    severity: {number: .severityNumber},
    body: .body.stringValue,
    # Its name is also the begin of the name of the plan's hash, and no field can be a text and an object. The body has it.
    attributes: (($record.attributes | del(.["auditrace.job.plan"])) + $integrity),
    resource: $resource,
    instrumentationScope: ($scope | {name, version})
  }
