-- Statements of the SQLite store. Placeholders are named; rows are tuples in the order of the columns here.

-- name: open_stream
INSERT INTO audit_streams (
    stream_id, epoch, owner, opened_ns, number, hash, record_id, observed_ns, mac, alive_until_ns
) VALUES (:stream_id, 1, :owner, :opened_ns, 0, '', '', 0, '', :opened_ns + :lease_ns)

-- name: open_cursor
INSERT INTO delivery_cursors (stream_id, number) VALUES (:stream_id, 0)

-- name: move_tip
UPDATE audit_streams
SET number = :number, hash = :hash, record_id = :record_id, observed_ns = :observed_ns, mac = :mac,
    alive_until_ns = :now_ns + :lease_ns
WHERE stream_id = :stream_id AND epoch = 1 AND closed = :closed AND number = :old_number AND hash = :old_hash
RETURNING alive_until_ns

-- name: renew_stream
UPDATE audit_streams SET alive_until_ns = :now_ns + :lease_ns
WHERE stream_id = :stream_id AND epoch = 1 AND closed = 0
RETURNING alive_until_ns

-- name: close_stream
UPDATE audit_streams SET closed = 1 WHERE stream_id = :stream_id AND closed = 0

-- name: envelope
SELECT envelope_id FROM audit_envelopes WHERE resource = :resource AND scope = :scope

-- name: add_envelope
INSERT INTO audit_envelopes (resource, scope) VALUES (:resource, :scope) RETURNING envelope_id

-- name: add_record
INSERT INTO audit_records (
    record_id, stream_id, number, hash, event_name, timestamp_ns, observed_ns, tenant_id, actor_id, action, outcome,
    result, target_type, target_id, target_version, versioned_job, job_id, request_id, trace_id, span_id, body, otlp,
    envelope_id
) VALUES (
    :record_id, :stream_id, :number, :hash, :event_name, :timestamp_ns, :observed_ns, :tenant_id, :actor_id, :action,
    :outcome, :result, :target_type, :target_id, :target_version, :versioned_job, :job_id, :request_id, :trace_id,
    :span_id, :body, :otlp, :envelope_id
)

-- name: add_job
INSERT INTO jobs (
    job_id, tenant_id, template, status, version, created_by, created_ns, not_before_ns, document
) VALUES (
    :job_id, :tenant_id, :template, :status, :version, :created_by, :created_ns, :not_before_ns, :document
)
;
INSERT INTO job_versions (job_id, version, status, record_id, document_sha256)
VALUES (:job_id, :version, :status, :record_id, :document_sha256)
RETURNING version

-- name: change_job
UPDATE jobs SET status = :status, version = :version, not_before_ns = :not_before_ns, document = :document
WHERE job_id = :job_id AND version = :version - 1
;
INSERT INTO job_versions (job_id, version, status, record_id, document_sha256)
SELECT :job_id, :version, :status, :record_id, :document_sha256 WHERE changes() = 1
RETURNING version

-- name: job
SELECT document FROM jobs WHERE job_id = :job_id AND (:tenant_id IS NULL OR tenant_id = :tenant_id)

-- name: next_runnable
-- Tenants take turns: first the one with the fewest runs in progress, then the one whose last turn is longest ago.
-- A cross join, because SQLite does not reorder it: the few runs in progress must come before the many jobs.
WITH due AS (
    SELECT tenant_id, min(not_before_ns) AS since_ns FROM jobs
    WHERE status = 'queued' AND not_before_ns <= :now_ns AND (:max_bytes IS NULL OR tenant_id NOT IN (
        SELECT tenant_id FROM tenant_storage GROUP BY tenant_id HAVING sum(bytes) >= :max_bytes
    ))
    GROUP BY tenant_id
), busy AS (
    SELECT tenant_id, count(*) AS runs FROM job_runs CROSS JOIN jobs USING (job_id)
    WHERE lease_until_ns IS NOT NULL GROUP BY tenant_id
)
SELECT document FROM jobs
WHERE status = 'queued' AND not_before_ns <= :now_ns AND tenant_id = (
    SELECT tenant_id FROM due LEFT JOIN busy USING (tenant_id) LEFT JOIN tenant_turns USING (tenant_id)
    ORDER BY coalesce(runs, 0), coalesce(last_ns, 0), since_ns LIMIT 1
)
ORDER BY not_before_ns LIMIT 1

-- name: take_turn
INSERT INTO tenant_turns (tenant_id, last_ns) SELECT tenant_id, :started_ns FROM jobs WHERE job_id = :job_id
ON CONFLICT (tenant_id) DO UPDATE SET last_ns = excluded.last_ns

-- name: next_due
SELECT min(not_before_ns) FROM jobs WHERE status = 'queued'

-- name: cancelled_runs
SELECT job_id FROM job_runs CROSS JOIN jobs USING (job_id)
WHERE lease_until_ns IS NOT NULL AND worker_id = :worker_id AND jobs.status = 'cancelled'

-- name: leased_runs
SELECT document, worker_id, lease_until_ns FROM job_runs WHERE lease_until_ns IS NOT NULL ORDER BY lease_until_ns

-- name: renew_lease
-- Joined with the job, because the run of a cancelled job is not renewed, although its lease is valid.
UPDATE job_runs SET lease_until_ns = :until_ns
FROM jobs
WHERE jobs.job_id = job_runs.job_id AND job_runs.job_id = :job_id AND number = :run AND worker_id = :worker_id
    AND lease_until_ns IS NOT NULL AND jobs.status = 'running'
RETURNING number

-- name: start_run
INSERT INTO job_runs (job_id, number, status, worker_id, document, lease_until_ns)
VALUES (:job_id, :number, :status, :worker_id, :document, :lease_until_ns)

-- name: end_run
UPDATE job_runs SET status = :status, document = :document, lease_until_ns = NULL
WHERE job_id = :job_id AND number = :number AND lease_until_ns IS NOT NULL
RETURNING number

-- name: run
SELECT document FROM job_runs WHERE job_id = :job_id AND number = :number

-- name: runs
SELECT document FROM job_runs WHERE job_id = :job_id ORDER BY number

-- name: put_input
INSERT INTO job_inputs (job_id, name, size, sha256, payload) VALUES (:job_id, :name, :size, :sha256, :payload)
ON CONFLICT (job_id, name) DO UPDATE SET size = excluded.size, sha256 = excluded.sha256, payload = excluded.payload

-- name: inputs
SELECT name, size, sha256 FROM job_inputs WHERE job_id = :job_id ORDER BY name

-- name: input_payload
SELECT payload FROM job_inputs WHERE job_id = :job_id AND name = :name

-- name: put_artifact
INSERT INTO job_artifacts (job_id, run, name, size, sha256, payload)
VALUES (:job_id, :run, :name, :size, :sha256, :payload)

-- name: artifacts
SELECT name, size, sha256 FROM job_artifacts WHERE job_id = :job_id AND run = :run ORDER BY name

-- name: artifact_part
SELECT substr(payload, :begin, :count) FROM job_artifacts WHERE job_id = :job_id AND run = :run AND name = :name

-- name: put_secret
INSERT INTO job_secrets (job_id, name, ciphertext) VALUES (:job_id, :name, :ciphertext)

-- name: secrets
SELECT name, ciphertext FROM job_secrets WHERE job_id = :job_id

-- name: put_key
INSERT INTO api_keys (key_id, tenant_id, name, roles, secret_sha256, created_ns, expires_ns, person)
VALUES (:key_id, :tenant_id, :name, :roles, :secret_sha256, :created_ns, :expires_ns, :person)

-- name: put_key_secret
INSERT INTO api_key_secrets (key_id, number, secret_sha256, made_ns, previous_sha256, previous_until_ns, record_id, mac)
VALUES (
    :key_id, :number, :secret_sha256, :made_ns, :previous_sha256, :previous_until_ns, :record_id, :mac
)

-- name: lock_keys
-- A transaction that writes is alone anyway.
SELECT 1

-- name: revoke_key
UPDATE api_keys SET revoked_ns = :revoked_ns WHERE key_id = :key_id AND revoked_ns IS NULL
RETURNING key_id

-- name: api_keys
SELECT * FROM present_api_keys WHERE {where} ORDER BY created_ns, name

-- name: keys_on_record
SELECT * FROM api_keys_on_record WHERE {where}
ORDER BY key_id

-- name: created_without_key
SELECT record_id, event_name, body FROM key_records WHERE event_name = 'key.create' AND NOT EXISTS (
    SELECT 1 FROM api_keys WHERE name = target_id
        AND tenant_id = json_extract(body, '$.attributes."auditrace.changes".tenant.to')
)

-- name: configuration
SELECT number, source, host, document, delivers, record_id, before, mac
FROM configurations WHERE {where} ORDER BY number DESC LIMIT 1

-- name: put_configuration
INSERT INTO configurations (number, source, host, document, delivers, record_id, before, mac)
VALUES (:number, :source, :host, :document, :delivers, :record_id, :before, :mac)

-- name: pending_offers
SELECT
    changed.number, changed.document, records.stream_id, records.number,
    known.number, known.source, known.host, known.document, known.delivers, known.record_id, known.before, known.mac
FROM configurations AS changed
JOIN configurations AS known ON known.number = changed.before
JOIN audit_records AS records ON records.record_id = changed.record_id
LEFT JOIN configuration_offers AS offers ON offers.number = changed.number
WHERE offers.number IS NULL
ORDER BY changed.number

-- name: end_offer
INSERT INTO configuration_offers (number, answer, ended_ns) VALUES (:number, :answer, :now_ns)
ON CONFLICT (number) DO NOTHING

-- name: note_use
INSERT INTO api_key_uses (key_id, used_ns) VALUES (:key_id, :used_ns)
ON CONFLICT (key_id) DO UPDATE SET used_ns = max(used_ns, excluded.used_ns)

-- name: key_uses
SELECT key_id, used_ns FROM api_key_uses

-- name: stored_bytes
SELECT coalesce(sum(bytes), 0) FROM tenant_storage WHERE tenant_id = :tenant_id

-- name: remember
DELETE FROM idempotency_keys WHERE expires_ns <= :now_ns
;
INSERT INTO idempotency_keys (tenant_id, actor_id, route, key_sha256, body_sha256, job_id, expires_ns)
VALUES (:tenant_id, :actor_id, :route, :key_sha256, :body_sha256, :job_id, :expires_ns)
RETURNING key_sha256

-- name: remembered
SELECT tenant_id, actor_id, route, key_sha256, body_sha256, job_id, expires_ns FROM idempotency_keys
WHERE tenant_id = :tenant_id AND actor_id = :actor_id AND route = :route AND key_sha256 = :key_sha256
    AND expires_ns > :now_ns

-- name: job_counts
SELECT status, count(*) FROM jobs GROUP BY status

-- name: jobs
SELECT document FROM jobs WHERE {where} ORDER BY created_ns DESC, job_id DESC LIMIT :limit

-- name: stated_versions
-- The draft of a job, its confirmation, its first place in the queue, and a given version, in order; each with its
-- record, the tip of the record's stream, and the record behind it.
SELECT
    versions.version, versions.status, records.record_id, records.stream_id, records.number, records.hash, records.body,
    streams.number, streams.hash, streams.mac, following.body
FROM job_versions AS versions
LEFT JOIN audit_records AS records ON records.record_id = versions.record_id
LEFT JOIN audit_streams AS streams ON streams.stream_id = records.stream_id
LEFT JOIN audit_records AS following
    ON following.stream_id = records.stream_id AND following.number = records.number + 1
WHERE versions.job_id = :job_id AND versions.version <= :version AND (
    versions.status IN ('draft_ready', 'confirmed') OR versions.version = :version
    OR versions.version = (SELECT min(version) FROM job_versions WHERE job_id = :job_id AND status = 'queued')
)
ORDER BY versions.version

-- name: record
SELECT
    records.record_id, records.stream_id, records.number, hash, event_name, observed_ns, body,
    CASE
        WHEN parked_records.number IS NOT NULL THEN 'parked'
        WHEN records.number <= delivery_cursors.number THEN 'delivered'
        ELSE 'committed'
    END
FROM audit_records AS records
JOIN delivery_cursors USING (stream_id)
LEFT JOIN parked_records ON parked_records.stream_id = records.stream_id AND parked_records.number = records.number
WHERE record_id = :record_id AND (:tenant_id IS NULL OR tenant_id = :tenant_id)

-- name: records
SELECT
    records.record_id, records.stream_id, records.number, hash, event_name, observed_ns, body,
    CASE
        WHEN parked_records.number IS NOT NULL THEN 'parked'
        WHEN records.number <= delivery_cursors.number THEN 'delivered'
        ELSE 'committed'
    END,
    position
FROM audit_records AS records
JOIN delivery_cursors USING (stream_id)
LEFT JOIN parked_records ON parked_records.stream_id = records.stream_id AND parked_records.number = records.number
WHERE position < :before_position AND {where}
ORDER BY position DESC LIMIT :limit

-- name: places_before
SELECT position FROM audit_records AS records WHERE position < :before_position AND {where}
ORDER BY position DESC LIMIT :limit

-- name: places_behind
SELECT position FROM audit_records AS records WHERE position > :behind_position AND position < :newest AND {where}
ORDER BY position LIMIT :limit

-- name: next_event_name
-- Of any tenant, because the index knows none.
SELECT min(event_name) FROM audit_records WHERE event_name > :behind

-- name: next_result
SELECT min(result) FROM audit_records WHERE result > :behind

-- name: stored
SELECT
    otlp, resource, scope,
    records.record_id, records.stream_id, records.number, hash, event_name, observed_ns, body,
    CASE
        WHEN parked_records.number IS NOT NULL THEN 'parked'
        WHEN records.number <= delivery_cursors.number THEN 'delivered'
        ELSE 'committed'
    END,
    position
FROM audit_records AS records
JOIN audit_envelopes USING (envelope_id)
JOIN delivery_cursors USING (stream_id)
LEFT JOIN parked_records ON parked_records.stream_id = records.stream_id AND parked_records.number = records.number
WHERE position > :behind_position AND position < :newest AND {where}
ORDER BY position LIMIT :limit

-- name: stored_of_stream
SELECT
    otlp, resource, scope,
    records.record_id, records.stream_id, records.number, hash, event_name, observed_ns, body,
    CASE
        WHEN parked_records.number IS NOT NULL THEN 'parked'
        WHEN records.number <= delivery_cursors.number THEN 'delivered'
        ELSE 'committed'
    END
FROM audit_records AS records
JOIN audit_envelopes USING (envelope_id)
JOIN delivery_cursors USING (stream_id)
LEFT JOIN parked_records ON parked_records.stream_id = records.stream_id AND parked_records.number = records.number
WHERE records.stream_id = :stream_id AND records.number BETWEEN :first AND :last
ORDER BY records.number LIMIT :limit

-- name: streams
SELECT
    stream_id, opened_ns, audit_streams.number, audit_streams.hash, observed_ns, audit_streams.closed,
    delivery_cursors.number, audit_anchors.number, audit_anchors.checkpoint
FROM audit_streams JOIN delivery_cursors USING (stream_id) LEFT JOIN audit_anchors USING (stream_id)
WHERE :before_ns IS NULL OR (opened_ns, stream_id) < (:before_ns, :before_id)
ORDER BY opened_ns DESC, stream_id DESC
LIMIT :limit

-- name: checkpoints
SELECT
    audit_checkpoints.number, fingerprint, signature,
    audit_records.record_id, audit_records.stream_id, audit_records.number, audit_records.hash, event_name,
    audit_records.observed_ns, body,
    CASE
        WHEN parked_records.number IS NOT NULL THEN 'parked'
        WHEN audit_records.number <= delivery_cursors.number THEN 'delivered'
        ELSE 'committed'
    END
FROM audit_checkpoints
JOIN audit_records USING (record_id)
JOIN delivery_cursors USING (stream_id)
LEFT JOIN parked_records
    ON parked_records.stream_id = audit_records.stream_id AND parked_records.number = audit_records.number
WHERE :before IS NULL OR audit_checkpoints.number < :before
ORDER BY audit_checkpoints.number DESC
LIMIT :limit

-- name: checkpoints_behind
SELECT
    audit_checkpoints.number, fingerprint, signature,
    audit_records.record_id, audit_records.stream_id, audit_records.number, audit_records.hash, event_name,
    audit_records.observed_ns, body,
    CASE
        WHEN parked_records.number IS NOT NULL THEN 'parked'
        WHEN audit_records.number <= delivery_cursors.number THEN 'delivered'
        ELSE 'committed'
    END
FROM audit_checkpoints
JOIN audit_records USING (record_id)
JOIN delivery_cursors USING (stream_id)
LEFT JOIN parked_records
    ON parked_records.stream_id = audit_records.stream_id AND parked_records.number = audit_records.number
WHERE audit_checkpoints.number > :behind
ORDER BY audit_checkpoints.number
LIMIT :limit

-- name: checkpoint_before
SELECT coalesce(max(number), 0) FROM audit_checkpoints WHERE observed_ns < :observed_ns

-- name: anchored
SELECT coalesce(max(number), 0) FROM audit_anchors WHERE stream_id = :stream_id

-- name: hashes_of_stream
SELECT hash FROM audit_records
WHERE stream_id = :stream_id AND number BETWEEN :first AND :last ORDER BY number

-- name: outbox_state
WITH lagging AS (
    SELECT stream_id, delivery_cursors.number AS delivered, audit_streams.number AS committed
    FROM delivery_cursors JOIN audit_streams USING (stream_id)
    WHERE delivery_cursors.number < audit_streams.number
)
SELECT
    (SELECT coalesce(sum(committed - delivered), 0) FROM lagging),
    (SELECT min(observed_ns) FROM lagging CROSS JOIN audit_records
        ON audit_records.stream_id = lagging.stream_id AND audit_records.number = lagging.delivered + 1),
    (SELECT count(*) FROM parked_records)

-- name: last_place
SELECT coalesce(max(position), 0) FROM audit_records

-- name: release_lease
UPDATE leases SET until_ns = 0 WHERE name = :name AND owner = :owner

-- Delivery ------------------------------------------------------------------------------------------------------------

-- name: relaxed
-- This saves clients the wait for one more fsync: if a power loss sets a cursor back, the only effect is identical
-- duplicates.
PRAGMA synchronous = NORMAL

-- name: lagging_cursors
-- Streams behind `:turn` come first, so that streams take turns.
SELECT
    stream_id, delivery_cursors.number, audit_streams.number, audit_streams.closed,
    delivery_cursors.owner, delivery_cursors.epoch, until_ns
FROM delivery_cursors JOIN audit_streams USING (stream_id)
WHERE delivery_cursors.number < audit_streams.number
ORDER BY stream_id <= :turn, stream_id

-- name: take_stream
-- Only if the lease is as it was read: a lease that was renewed or taken meanwhile is not changed.
UPDATE delivery_cursors SET owner = :owner, epoch = epoch + 1, until_ns = :until_ns
WHERE stream_id = :stream_id AND owner = :old_owner AND epoch = :old_epoch AND until_ns = :old_until_ns
RETURNING epoch

-- name: streams_to_renew
SELECT stream_id, delivery_cursors.epoch FROM delivery_cursors JOIN audit_streams USING (stream_id)
WHERE delivery_cursors.owner = :owner AND until_ns BETWEEN :now_ns AND :due_ns
    AND delivery_cursors.number < audit_streams.number

-- name: renew_cursor
UPDATE delivery_cursors SET until_ns = :until_ns WHERE stream_id = :stream_id AND owner = :owner AND epoch = :epoch

-- name: release_streams
UPDATE delivery_cursors SET until_ns = 0 WHERE owner = :owner AND until_ns > 0

-- name: undelivered
-- Returns one record more than fits, so that a record that is too large for any batch is returned too.
SELECT number, record_id, otlp, resource, scope, event_name FROM (
    SELECT
        number, record_id, otlp, envelope_id, event_name,
        sum(length(otlp)) OVER (ORDER BY number) - length(otlp) AS before_bytes
    FROM audit_records
    WHERE stream_id = :stream_id AND number > :after
    ORDER BY number LIMIT :limit
) AS records JOIN audit_envelopes USING (envelope_id)
WHERE before_bytes <= :max_bytes
ORDER BY number

-- name: checkpoint_waits
-- A checkpoint waits for every existing record that it names and that is neither delivered nor parked.
SELECT EXISTS (
    SELECT 1 FROM audit_records
    JOIN json_each(audit_records.body, '$.attributes."auditrace.checkpoint.tips"') AS tip
    JOIN delivery_cursors ON delivery_cursors.stream_id = json_extract(tip.value, '$.stream_id')
    JOIN audit_streams ON audit_streams.stream_id = delivery_cursors.stream_id
    WHERE audit_records.stream_id = :stream_id AND audit_records.number = :number
        AND delivery_cursors.number < min(json_extract(tip.value, '$.number'), audit_streams.number)
)

-- name: move_cursor
-- Also succeeds if the cursor is there already: an earlier attempt moved it, and its answer was lost.
UPDATE delivery_cursors SET number = max(number, :last)
WHERE stream_id = :stream_id AND owner = :owner AND epoch = :epoch AND number BETWEEN :first - 1 AND :last
RETURNING number

-- name: park
INSERT INTO parked_records (stream_id, number, reason, parked_ns) VALUES (:stream_id, :number, :reason, :now_ns)
ON CONFLICT DO NOTHING

-- name: unpark
DELETE FROM parked_records WHERE stream_id = :stream_id AND number = :number

-- name: answered
UPDATE parked_records SET reason = :reason WHERE stream_id = :stream_id AND number = :number

-- name: parked
SELECT stream_id, number, record_id, otlp, resource, scope
FROM parked_records JOIN audit_records USING (stream_id, number) JOIN audit_envelopes USING (envelope_id)
WHERE (stream_id, number) > (:stream_id, :number)
ORDER BY stream_id, number LIMIT :limit

-- name: delivered_before
SELECT records.stream_id, records.number, record_id, otlp, resource, scope
FROM audit_records AS records JOIN audit_envelopes USING (envelope_id)
JOIN delivery_cursors AS cursors ON cursors.stream_id = records.stream_id
LEFT JOIN parked_records AS parked ON parked.stream_id = records.stream_id AND parked.number = records.number
WHERE records.stream_id = :stream_id AND records.number < :number AND records.number <= cursors.number
    AND parked_ns IS NULL
ORDER BY records.number DESC LIMIT 1

-- name: delivered_elsewhere
SELECT records.stream_id, records.number, record_id, otlp, resource, scope FROM (
    SELECT
        opened_ns, stream_id,
        (
            SELECT records.number FROM audit_records AS records
            LEFT JOIN parked_records AS parked
                ON parked.stream_id = records.stream_id AND parked.number = records.number
            WHERE records.stream_id = cursors.stream_id AND records.number <= cursors.number AND parked_ns IS NULL
            ORDER BY records.number DESC LIMIT 1
        ) AS last
    FROM delivery_cursors AS cursors JOIN audit_streams USING (stream_id)
    WHERE stream_id <> :stream_id AND cursors.number > 0
) AS others
JOIN audit_records AS records ON records.stream_id = others.stream_id AND records.number = others.last
JOIN audit_envelopes USING (envelope_id)
ORDER BY opened_ns DESC LIMIT 1

-- name: cursor
SELECT number FROM delivery_cursors WHERE stream_id = :stream_id

-- name: delivered_from
SELECT stream_id, audit_records.number, record_id, otlp, resource, scope
FROM audit_records JOIN audit_envelopes USING (envelope_id) LEFT JOIN parked_records USING (stream_id, number)
WHERE stream_id = :stream_id AND audit_records.number BETWEEN :first AND :last AND parked_ns IS NULL
ORDER BY audit_records.number LIMIT :limit

-- name: delivered_count_from
SELECT max(0, cursors.number + 1 - :first) - (
    SELECT count(*) FROM parked_records AS parked WHERE parked.stream_id = cursors.stream_id AND parked.number >= :first
) FROM delivery_cursors AS cursors WHERE stream_id = :stream_id

-- name: delivered_count
-- The count of delivered records; parked ones are not delivered.
SELECT (SELECT coalesce(sum(number), 0) FROM delivery_cursors) - (SELECT count(*) FROM parked_records)

-- name: records_behind
-- In the order of commits, in which a checkpoint comes after all records that it names. CROSS fixes the order of joins.
-- Returns one record more than fits, so that a record that is too large for any batch is returned too.
SELECT position, 1, stream_id, number, record_id, otlp, resource, scope FROM (
    SELECT
        position, audit_records.stream_id, audit_records.number, record_id, otlp, resource, scope,
        sum(length(otlp)) OVER (ORDER BY position) - length(otlp) AS before_bytes
    FROM audit_records CROSS JOIN delivery_cursors USING (stream_id) CROSS JOIN audit_envelopes USING (envelope_id)
    LEFT JOIN parked_records
        ON parked_records.stream_id = audit_records.stream_id AND parked_records.number = audit_records.number
    WHERE position > :position AND position <= :last AND audit_records.number <= delivery_cursors.number
        AND parked_records.number IS NULL
    ORDER BY position LIMIT :limit
)
WHERE before_bytes <= :max_bytes
ORDER BY position

-- name: replay
-- The progress of a replay is stored with the leases: with another table, processes of the previous release could not
-- open the database. The epoch is the number of records that the replay has passed.
SELECT owner, epoch FROM leases WHERE name = :name

-- name: put_replay
INSERT INTO leases (name, owner, epoch, until_ns) VALUES (:name, :place, :records, 0)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, epoch = excluded.epoch WHERE excluded.epoch > leases.epoch

-- name: forget_replay
DELETE FROM leases WHERE name = :name

-- name: parked_count
SELECT count(*) FROM parked_records

-- name: all_records
SELECT position, body, otlp, resource, scope FROM audit_records JOIN audit_envelopes USING (envelope_id)
ORDER BY position

-- Webhooks ------------------------------------------------------------------------------------------------------------

-- name: register_webhook
INSERT INTO webhook_endpoints (name, registered_ns) VALUES (:endpoint, :now_ns) ON CONFLICT DO NOTHING RETURNING name

-- name: webhook_begins_at_the_end
INSERT INTO webhook_cursors (endpoint, stream_id, number) SELECT :endpoint, stream_id, number FROM audit_streams

-- name: webhook_streams
SELECT streams.stream_id, coalesce(cursors.number, 0), streams.number
FROM audit_streams AS streams
LEFT JOIN webhook_cursors AS cursors ON cursors.endpoint = :endpoint AND cursors.stream_id = streams.stream_id
WHERE streams.number > coalesce(cursors.number, 0)
ORDER BY streams.opened_ns, streams.stream_id

-- name: webhook_records
SELECT records.record_id, records.number, hash, event_name, body FROM audit_records AS records
WHERE records.stream_id = :of_stream AND records.number > :after AND records.number <= :upto AND {where}
ORDER BY records.number LIMIT :limit

-- name: webhook_is_held
SELECT 1 FROM leases WHERE name = :name AND owner = :owner

-- name: move_webhook_cursor
-- A cursor that is already further stays there.
INSERT INTO webhook_cursors (endpoint, stream_id, number) VALUES (:endpoint, :stream_id, :number)
ON CONFLICT (endpoint, stream_id) DO UPDATE SET number = max(number, excluded.number)

-- name: note_webhook
UPDATE webhook_endpoints SET error = :error, failing_since_ns = :failing_since_ns WHERE name = :endpoint

-- name: webhook_state
SELECT error, failing_since_ns FROM webhook_endpoints WHERE name = :endpoint

-- name: webhook_backlog
WITH behind AS (
    SELECT streams.stream_id, coalesce(cursors.number, 0) AS passed, streams.number AS committed
    FROM audit_streams AS streams
    LEFT JOIN webhook_cursors AS cursors ON cursors.endpoint = :endpoint AND cursors.stream_id = streams.stream_id
    WHERE streams.number > coalesce(cursors.number, 0)
)
SELECT
    (SELECT coalesce(sum(committed - passed), 0) FROM behind),
    (SELECT min(observed_ns) FROM behind CROSS JOIN audit_records
        ON audit_records.stream_id = behind.stream_id AND audit_records.number = behind.passed + 1)

-- Checkpoints ---------------------------------------------------------------------------------------------------------

-- name: lease
SELECT owner, until_ns FROM leases WHERE name = :name

-- name: put_lease
INSERT INTO leases (name, owner, epoch, until_ns) VALUES (:name, :owner, 1, :until_ns)
ON CONFLICT (name) DO UPDATE SET
    epoch = CASE WHEN owner = excluded.owner THEN epoch ELSE epoch + 1 END,
    owner = excluded.owner,
    until_ns = excluded.until_ns

-- name: streams_to_anchor
-- Streams that are open, or that differ from what the last checkpoint named.
SELECT
    streams.stream_id, streams.owner, streams.epoch, streams.number, streams.hash, streams.record_id, streams.mac,
    streams.closed, streams.alive_until_ns, anchors.number, anchors.hash, anchors.closed, anchors.checkpoint, anchors.mac
FROM audit_streams AS streams LEFT JOIN audit_anchors AS anchors USING (stream_id)
WHERE streams.closed = 0 OR anchors.closed IS NOT 1
    OR streams.number <> anchors.number OR streams.hash <> anchors.hash
ORDER BY streams.opened_ns, streams.stream_id

-- name: streams_overgrown
-- Streams with records outside of 1 to their tip: lanes write none there, because they move the tip with each record.
SELECT
    stream_id,
    (SELECT min(number) FROM audit_records WHERE audit_records.stream_id = audit_streams.stream_id),
    (SELECT max(number) FROM audit_records WHERE audit_records.stream_id = audit_streams.stream_id)
FROM audit_streams
WHERE EXISTS (
    SELECT 1 FROM audit_records
    WHERE audit_records.stream_id = audit_streams.stream_id AND audit_records.number > audit_streams.number
) OR EXISTS (
    SELECT 1 FROM audit_records WHERE audit_records.stream_id = audit_streams.stream_id AND audit_records.number < 1
)

-- name: records_of_stream
SELECT number, record_id, hash, body FROM audit_records
WHERE stream_id = :stream_id AND number BETWEEN :first AND :last ORDER BY number

-- name: last_checkpoint
SELECT number, record_id, hash, signature, fingerprint, streams, records, observed_ns, mac FROM audit_checkpoints
ORDER BY number DESC LIMIT 1

-- name: hash_of_checkpoint
SELECT hash FROM audit_checkpoints WHERE number = :number

-- name: has_record
SELECT EXISTS (SELECT 1 FROM audit_records WHERE record_id = :record_id)

-- name: anchor_totals
SELECT count(*), coalesce(sum(number), 0) FROM audit_anchors

-- name: add_checkpoint
INSERT INTO audit_checkpoints (number, record_id, hash, signature, fingerprint, streams, records, observed_ns, mac)
VALUES (:number, :record_id, :hash, :signature, :fingerprint, :streams, :records, :observed_ns, :mac)

-- name: move_anchor
UPDATE audit_anchors SET number = :number, hash = :hash, closed = :closed, checkpoint = :checkpoint, mac = :mac
WHERE stream_id = :stream_id
RETURNING stream_id

-- name: add_anchor
INSERT INTO audit_anchors (stream_id, number, hash, closed, checkpoint, mac)
VALUES (:stream_id, :number, :hash, :closed, :checkpoint, :mac)

-- name: refused_streams
SELECT stream_id, reason FROM refused_streams ORDER BY stream_id

-- name: disowned_streams
SELECT stream_id, reason FROM refused_streams WHERE disowned = 1

-- name: forget_refused
DELETE FROM refused_streams WHERE stream_id = :stream_id AND disowned = 0

-- name: put_refused
INSERT INTO refused_streams (stream_id, reason, since_ns, disowned) VALUES (:stream_id, :reason, :now_ns, 0)
ON CONFLICT (stream_id) DO UPDATE SET reason = excluded.reason

-- name: disown_stream
-- The lane left its stream at this tip. A stream that was closed at the same tip is sound, and is not disowned.
INSERT INTO refused_streams (stream_id, reason, since_ns, disowned)
SELECT :stream_id, :reason, :now_ns, 1
WHERE NOT EXISTS (
    SELECT 1 FROM audit_streams WHERE stream_id = :stream_id AND number = :number AND hash = :hash AND closed = 1
)
ON CONFLICT (stream_id) DO UPDATE SET reason = excluded.reason, disowned = 1

-- name: number_is_taken
SELECT 1 FROM audit_records WHERE stream_id = :stream_id AND number = :number

-- name: signing_keys
SELECT number, fingerprint, public_key, first_checkpoint, rotation, mac FROM signing_keys ORDER BY number

-- name: has_signed
SELECT EXISTS (SELECT 1 FROM signing_keys) OR EXISTS (SELECT 1 FROM audit_checkpoints)

-- name: register_key
INSERT INTO signing_keys (number, fingerprint, public_key, first_checkpoint, registered_ns, rotation, mac)
VALUES (:number, :fingerprint, :public_key, :first_checkpoint, :now_ns, :rotation, :mac)

-- name: has_table
SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name)

-- name: has_streams
SELECT EXISTS (SELECT 1 FROM audit_streams)

-- name: one_at_a_time
-- Nothing to lock: a transaction that writes already has the only lock for writing.
SELECT 1

-- name: open_streams
SELECT stream_id, owner, alive_until_ns FROM audit_streams WHERE closed = 0 AND stream_id <> :own
ORDER BY opened_ns, stream_id

-- Restore -------------------------------------------------------------------------------------------------------------

-- name: end_streams
UPDATE audit_streams SET closed = 1 WHERE closed = 0 AND stream_id <> :own RETURNING stream_id
