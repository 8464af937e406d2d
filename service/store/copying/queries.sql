-- The copy of a ledger from a SQLite file into a PostgreSQL. For each table, `read_…` returns the rows, by the same
-- statement on both databases and in the order of the comparison; `write_…` writes them.

-- name: read_streams
SELECT
    stream_id, epoch, owner, '' AS session, opened_ns, number, hash, record_id, observed_ns, mac, closed,
    0 AS alive_until_ns
FROM audit_streams ORDER BY stream_id

-- name: write_streams
COPY audit_streams (
    stream_id, epoch, owner, session, opened_ns, number, hash, record_id, observed_ns, mac, closed, alive_until_ns
) FROM STDIN

-- name: read_envelopes
SELECT envelope_id, resource, scope FROM audit_envelopes ORDER BY envelope_id

-- name: write_envelopes
COPY audit_envelopes (envelope_id, resource, scope) FROM STDIN

-- name: read_records
SELECT
    record_id, stream_id, number, hash, event_name, timestamp_ns, observed_ns, tenant_id, actor_id, action, outcome,
    result, target_type, target_id, target_version, versioned_job, job_id, request_id, trace_id, span_id, body, otlp,
    envelope_id
FROM audit_records ORDER BY stream_id, number

-- name: write_records
COPY audit_records (
    record_id, stream_id, number, hash, event_name, timestamp_ns, observed_ns, tenant_id, actor_id, action, outcome,
    result, target_type, target_id, target_version, versioned_job, job_id, request_id, trace_id, span_id, body, otlp,
    envelope_id
) FROM STDIN

-- name: read_cursors
-- The leases of relays are not copied, because they belong to processes of the source.
SELECT stream_id, number, epoch FROM delivery_cursors ORDER BY stream_id

-- name: write_cursors
COPY delivery_cursors (stream_id, number, epoch) FROM STDIN

-- name: read_parked
SELECT stream_id, number, reason, parked_ns FROM parked_records ORDER BY stream_id, number

-- name: write_parked
COPY parked_records (stream_id, number, reason, parked_ns) FROM STDIN

-- name: read_jobs
SELECT job_id, tenant_id, template, status, version, created_by, created_ns, not_before_ns, document
FROM jobs ORDER BY job_id

-- name: write_jobs
COPY jobs (job_id, tenant_id, template, status, version, created_by, created_ns, not_before_ns, document) FROM STDIN

-- name: read_versions
SELECT job_id, version, status, record_id, document_sha256 FROM job_versions ORDER BY job_id, version

-- name: write_versions
COPY job_versions (job_id, version, status, record_id, document_sha256) FROM STDIN

-- name: read_runs
SELECT job_id, number, status, worker_id, document, lease_until_ns FROM job_runs ORDER BY job_id, number

-- name: write_runs
COPY job_runs (job_id, number, status, worker_id, document, lease_until_ns) FROM STDIN

-- name: read_turns
SELECT tenant_id, last_ns FROM tenant_turns ORDER BY tenant_id

-- name: write_turns
COPY tenant_turns (tenant_id, last_ns) FROM STDIN

-- name: read_inputs
SELECT job_id, name, size, sha256, payload FROM job_inputs ORDER BY job_id, name

-- name: write_inputs
COPY job_inputs (job_id, name, size, sha256, payload) FROM STDIN

-- name: read_artifacts
SELECT job_id, run, name, size, sha256, payload FROM job_artifacts ORDER BY job_id, run, name

-- name: write_artifacts
COPY job_artifacts (job_id, run, name, size, sha256, payload) FROM STDIN

-- name: read_secrets
SELECT job_id, name, ciphertext FROM job_secrets ORDER BY job_id, name

-- name: write_secrets
COPY job_secrets (job_id, name, ciphertext) FROM STDIN

-- name: read_api_keys
SELECT key_id, tenant_id, name, roles, secret_sha256, created_ns, revoked_ns, expires_ns, person
FROM api_keys ORDER BY key_id

-- name: write_api_keys
COPY api_keys (key_id, tenant_id, name, roles, secret_sha256, created_ns, revoked_ns, expires_ns, person) FROM STDIN

-- name: read_key_secrets
SELECT key_id, number, secret_sha256, made_ns, previous_sha256, previous_until_ns, record_id, mac
FROM api_key_secrets ORDER BY key_id, number

-- name: write_key_secrets
COPY api_key_secrets (
    key_id, number, secret_sha256, made_ns, previous_sha256, previous_until_ns, record_id, mac
) FROM STDIN

-- name: read_key_uses
SELECT key_id, used_ns FROM api_key_uses ORDER BY key_id

-- name: write_key_uses
COPY api_key_uses (key_id, used_ns) FROM STDIN

-- name: read_idempotency_keys
SELECT tenant_id, actor_id, route, key_sha256, body_sha256, job_id, expires_ns
FROM idempotency_keys ORDER BY tenant_id, actor_id, route, key_sha256

-- name: write_idempotency_keys
COPY idempotency_keys (tenant_id, actor_id, route, key_sha256, body_sha256, job_id, expires_ns) FROM STDIN

-- name: read_signing_keys
SELECT number, fingerprint, public_key, first_checkpoint, registered_ns, rotation, mac FROM signing_keys ORDER BY number

-- name: write_signing_keys
COPY signing_keys (number, fingerprint, public_key, first_checkpoint, registered_ns, rotation, mac) FROM STDIN

-- name: read_checkpoints
SELECT number, record_id, hash, signature, fingerprint, streams, records, observed_ns, mac
FROM audit_checkpoints ORDER BY number

-- name: write_checkpoints
COPY audit_checkpoints (number, record_id, hash, signature, fingerprint, streams, records, observed_ns, mac) FROM STDIN

-- name: read_anchors
SELECT stream_id, number, hash, closed, checkpoint, mac FROM audit_anchors ORDER BY stream_id

-- name: write_anchors
COPY audit_anchors (stream_id, number, hash, closed, checkpoint, mac) FROM STDIN

-- name: read_configurations
SELECT number, source, host, document, delivers, record_id, before, mac FROM configurations ORDER BY number

-- name: write_configurations
COPY configurations (number, source, host, document, delivers, record_id, before, mac) FROM STDIN

-- name: read_configuration_offers
SELECT number, answer, ended_ns FROM configuration_offers ORDER BY number

-- name: write_configuration_offers
COPY configuration_offers (number, answer, ended_ns) FROM STDIN

-- name: read_webhook_endpoints
SELECT name, registered_ns, error, failing_since_ns FROM webhook_endpoints ORDER BY name

-- name: write_webhook_endpoints
COPY webhook_endpoints (name, registered_ns, error, failing_since_ns) FROM STDIN

-- name: read_webhook_cursors
SELECT endpoint, stream_id, number FROM webhook_cursors ORDER BY endpoint, stream_id

-- name: write_webhook_cursors
COPY webhook_cursors (endpoint, stream_id, number) FROM STDIN

-- name: read_tenant_storage
SELECT tenant_id, 0 AS part, CAST(sum(bytes) AS bigint) FROM tenant_storage GROUP BY tenant_id ORDER BY tenant_id

-- name: write_tenant_storage
COPY tenant_storage (tenant_id, part, bytes) FROM STDIN

-- Before and after the copy -------------------------------------------------------------------------------------------

-- name: source_begin
-- Locks the file against every writer until the end.
BEGIN IMMEDIATE

-- name: times_of_source
SELECT min(observed_ns), max(observed_ns) FROM audit_records

-- name: target_lock
-- The tables that a first start writes before all others.
LOCK TABLE audit_streams, signing_keys, api_keys IN EXCLUSIVE MODE

-- name: target_is_empty
SELECT NOT (
    EXISTS (SELECT FROM audit_streams) OR EXISTS (SELECT FROM signing_keys) OR EXISTS (SELECT FROM api_keys)
    OR EXISTS (SELECT FROM jobs) OR EXISTS (SELECT FROM audit_envelopes)
)

-- name: target_partitions
SELECT make_record_partitions(%(moment_ns)s)

-- name: target_open
-- A job is copied with its whole history at once, not version by version. The constraints between the two still hold.
-- What tenants store is copied as it was counted.
ALTER TABLE jobs DISABLE TRIGGER jobs_begin_at_the_first_version;
ALTER TABLE job_versions DISABLE TRIGGER job_versions_follow_their_job;
ALTER TABLE audit_records DISABLE TRIGGER tenant_storage_has_records;
ALTER TABLE job_inputs DISABLE TRIGGER tenant_storage_has_inputs;
ALTER TABLE job_artifacts DISABLE TRIGGER tenant_storage_has_artifacts

-- name: target_close
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE jobs ENABLE TRIGGER jobs_begin_at_the_first_version;
ALTER TABLE job_versions ENABLE TRIGGER job_versions_follow_their_job;
ALTER TABLE audit_records ENABLE TRIGGER tenant_storage_has_records;
ALTER TABLE job_inputs ENABLE TRIGGER tenant_storage_has_inputs;
ALTER TABLE job_artifacts ENABLE TRIGGER tenant_storage_has_artifacts

-- name: target_go_on
-- The next envelope gets the number after the copied ones.
SELECT setval(pg_get_serial_sequence('audit_envelopes', 'envelope_id'), max(envelope_id))
FROM audit_envelopes HAVING max(envelope_id) IS NOT NULL
