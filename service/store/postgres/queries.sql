-- Statements of the PostgreSQL store. Placeholders are named; rows are tuples in the order of the columns here.

-- Lanes ---------------------------------------------------------------------------------------------------------------

-- name: session_name
SELECT pid || '@' || backend_start, pid FROM pg_stat_activity WHERE pid = pg_backend_pid()

-- name: end_session
-- Returns true when the session is gone, or false after five seconds.
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid || '@' || backend_start = %(session)s

-- name: make_partitions
SELECT make_record_partitions(ledger_now_ns())

-- name: begin_sealing
-- The lock announces the time from which this transaction may seal records (listing_horizon.py). The time of sealing is
-- read after the lock is taken.
WITH announced AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(ledger_now_ns() / 1000))
SELECT ledger_now_ns(), pg_backend_pid(), current_setting('session_replication_role') FROM announced

-- name: open_stream
INSERT INTO audit_streams (
    stream_id, epoch, owner, session, opened_ns, number, hash, record_id, observed_ns, mac, alive_until_ns
) VALUES (
    %(stream_id)s, 1, %(owner)s, %(session)s, %(opened_ns)s, 0, '', '', 0, '', ledger_now_ns() + %(lease_ns)s
)

-- name: open_cursor
INSERT INTO delivery_cursors (stream_id, number, epoch) VALUES (%(stream_id)s, 0, 0)

-- name: move_tip
-- The commit that follows has no time limit: a commit that is cancelled while it waits for a standby returns a success.
UPDATE audit_streams
SET number = %(number)s, hash = %(hash)s, record_id = %(record_id)s, observed_ns = %(observed_ns)s, mac = %(mac)s,
    alive_until_ns = ledger_now_ns() + %(lease_ns)s
WHERE stream_id = %(stream_id)s AND epoch = 1 AND closed = %(closed)s AND number = %(old_number)s AND hash = %(old_hash)s
RETURNING alive_until_ns, set_config('statement_timeout', '0', true)

-- name: renew_stream
UPDATE audit_streams SET alive_until_ns = ledger_now_ns() + %(lease_ns)s
WHERE stream_id = %(stream_id)s AND epoch = 1 AND closed = 0
RETURNING alive_until_ns

-- name: close_stream
UPDATE audit_streams SET closed = 1 WHERE stream_id = %(stream_id)s AND closed = 0

-- name: end_stream
-- Also updates a closed stream, because something must be committed after all records of the stream.
UPDATE audit_streams SET closed = 1 WHERE stream_id = %(stream_id)s

-- name: disown_stream
-- The lane left its stream at this tip. A stream that was closed at the same tip is sound, and is not disowned.
INSERT INTO refused_streams (stream_id, reason, since_ns, disowned)
SELECT %(stream_id)s, %(reason)s, ledger_now_ns(), 1
WHERE NOT EXISTS (
    SELECT FROM audit_streams
    WHERE stream_id = %(stream_id)s AND number = %(number)s AND hash = %(hash)s AND closed = 1
)
ON CONFLICT (stream_id) DO UPDATE SET reason = excluded.reason, disowned = 1

-- name: has_record
SELECT EXISTS (SELECT FROM audit_record_keys WHERE record_id = %(record_id)s)

-- name: envelope
SELECT envelope_id FROM audit_envelopes
WHERE sha256(resource) = sha256(%(resource)b) AND sha256(scope) = sha256(%(scope)b)
ORDER BY envelope_id LIMIT 1

-- name: add_envelope
INSERT INTO audit_envelopes (resource, scope) VALUES (%(resource)b, %(scope)b) RETURNING envelope_id

-- Work ----------------------------------------------------------------------------------------------------------------

-- name: add_record
INSERT INTO audit_records (
    record_id, stream_id, number, hash, event_name, timestamp_ns, observed_ns, tenant_id, actor_id, action, outcome,
    result, target_type, target_id, target_version, versioned_job, job_id, request_id, trace_id, span_id, body, otlp,
    envelope_id
) VALUES (
    %(record_id)s, %(stream_id)s, %(number)s, %(hash)s, %(event_name)s, %(timestamp_ns)s, %(observed_ns)s,
    %(tenant_id)s, %(actor_id)s, %(action)s, %(outcome)s, %(result)s, %(target_type)s, %(target_id)s,
    %(target_version)s, %(versioned_job)s, %(job_id)s, %(request_id)s, %(trace_id)s, %(span_id)s, %(body)s, %(otlp)b,
    %(envelope_id)s
)

-- name: add_job
WITH added AS (
    INSERT INTO jobs (
        job_id, tenant_id, template, status, version, created_by, created_ns, not_before_ns, document
    ) VALUES (
        %(job_id)s, %(tenant_id)s, %(template)s, %(status)s, %(version)s, %(created_by)s, %(created_ns)s,
        %(not_before_ns)s, %(document)s
    ) RETURNING job_id, version, status
)
INSERT INTO job_versions (job_id, version, status, record_id, document_sha256)
SELECT job_id, version, status, %(record_id)s, %(document_sha256)s FROM added
RETURNING version

-- name: change_job
WITH changed AS (
    UPDATE jobs
    SET status = %(status)s, version = %(version)s, not_before_ns = %(not_before_ns)s, document = %(document)s
    WHERE job_id = %(job_id)s AND version = %(version)s - 1
    RETURNING job_id, version, status
)
INSERT INTO job_versions (job_id, version, status, record_id, document_sha256)
SELECT job_id, version, status, %(record_id)s, %(document_sha256)s FROM changed
RETURNING version

-- name: locked_job
-- A group does not wait for a row while it holds locks on others.
SELECT document FROM jobs WHERE job_id = %(job_id)s AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
FOR NO KEY UPDATE NOWAIT

-- name: awaited_job
SELECT document FROM jobs WHERE job_id = %(job_id)s AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
FOR NO KEY UPDATE

-- name: next_runnable
-- Tenants take turns: first the one with the fewest runs in progress, then the one whose last turn is longest ago. The
-- tenants are found by steps in the index, so that a long queue costs no more than a short one. A job that another lane
-- is claiming is skipped.
WITH RECURSIVE tenants AS (
    (SELECT tenant_id, not_before_ns FROM jobs WHERE status = 'queued' ORDER BY tenant_id, not_before_ns LIMIT 1)
    UNION ALL
    SELECT next.tenant_id, next.not_before_ns FROM tenants CROSS JOIN LATERAL (
        SELECT jobs.tenant_id, jobs.not_before_ns FROM jobs
        WHERE status = 'queued' AND jobs.tenant_id > tenants.tenant_id
        ORDER BY jobs.tenant_id, jobs.not_before_ns LIMIT 1
    ) AS next
), busy AS (
    SELECT tenant_id, count(*) AS runs FROM job_runs JOIN jobs USING (job_id)
    WHERE lease_until_ns IS NOT NULL GROUP BY tenant_id
), turns AS (
    SELECT tenant_id FROM tenants LEFT JOIN busy USING (tenant_id) LEFT JOIN tenant_turns USING (tenant_id)
    WHERE not_before_ns <= %(now_ns)s AND (%(max_bytes)s::bigint IS NULL OR tenant_id NOT IN (
        SELECT tenant_id FROM tenant_storage GROUP BY tenant_id HAVING sum(bytes) >= %(max_bytes)s
    ))
    ORDER BY coalesce(runs, 0), coalesce(last_ns, 0), not_before_ns
)
SELECT due.document FROM turns CROSS JOIN LATERAL (
    SELECT document FROM jobs
    WHERE status = 'queued' AND jobs.tenant_id = turns.tenant_id AND not_before_ns <= %(now_ns)s
    ORDER BY not_before_ns, job_id LIMIT 1
    FOR NO KEY UPDATE SKIP LOCKED
) AS due LIMIT 1

-- name: take_turn
-- The time only grows, in whatever order lanes that claim for one tenant commit.
INSERT INTO tenant_turns (tenant_id, last_ns) SELECT tenant_id, %(started_ns)s FROM jobs WHERE job_id = %(job_id)s
ON CONFLICT (tenant_id) DO UPDATE SET last_ns = greatest(tenant_turns.last_ns, excluded.last_ns)

-- name: leased_runs
-- Returns one run whose lease has ended. Its job is locked too; rows that others lock are skipped.
SELECT job_runs.document, worker_id, lease_until_ns FROM job_runs JOIN jobs USING (job_id)
WHERE lease_until_ns < %(now_ns)s
ORDER BY lease_until_ns LIMIT 1
FOR NO KEY UPDATE SKIP LOCKED

-- name: renew_lease
-- Joined with the job, because the run of a cancelled job is not renewed, although its lease is valid.
UPDATE job_runs SET lease_until_ns = %(until_ns)s
FROM jobs
WHERE jobs.job_id = job_runs.job_id AND job_runs.job_id = %(job_id)s AND number = %(run)s AND worker_id = %(worker_id)s
    AND lease_until_ns IS NOT NULL AND jobs.status = 'running'
RETURNING number

-- name: start_run
INSERT INTO job_runs (job_id, number, status, worker_id, document, lease_until_ns)
VALUES (%(job_id)s, %(number)s, %(status)s, %(worker_id)s, %(document)s, %(lease_until_ns)s)

-- name: end_run
UPDATE job_runs SET status = %(status)s, document = %(document)s, lease_until_ns = NULL
WHERE job_id = %(job_id)s AND number = %(number)s AND lease_until_ns IS NOT NULL
RETURNING number

-- name: run
SELECT document FROM job_runs WHERE job_id = %(job_id)s AND number = %(number)s

-- name: put_input
INSERT INTO job_inputs (job_id, name, size, sha256, payload)
VALUES (%(job_id)s, %(name)s, %(size)s, %(sha256)s, %(payload)b)
ON CONFLICT (job_id, name) DO UPDATE SET size = excluded.size, sha256 = excluded.sha256, payload = excluded.payload

-- name: put_artifact
INSERT INTO job_artifacts (job_id, run, name, size, sha256, payload)
VALUES (%(job_id)s, %(run)s, %(name)s, %(size)s, %(sha256)s, %(payload)b)

-- name: put_secret
INSERT INTO job_secrets (job_id, name, ciphertext) VALUES (%(job_id)s, %(name)s, %(ciphertext)b)

-- name: put_key
INSERT INTO api_keys (key_id, tenant_id, name, roles, secret_sha256, created_ns, expires_ns, person)
VALUES (
    %(key_id)s, %(tenant_id)s, %(name)s, %(roles)s, %(secret_sha256)s, %(created_ns)s, %(expires_ns)s, %(person)s
)

-- name: lock_keys
-- Two names that look the same are not the same row, so no constraint keeps two transactions from making both.
SELECT pg_advisory_xact_lock(hashtextextended('names of API keys', 0))

-- name: put_key_secret
INSERT INTO api_key_secrets (key_id, number, secret_sha256, made_ns, previous_sha256, previous_until_ns, record_id, mac)
VALUES (
    %(key_id)s, %(number)s, %(secret_sha256)s, %(made_ns)s, %(previous_sha256)s, %(previous_until_ns)s, %(record_id)s,
    %(mac)s
)

-- name: revoke_key
UPDATE api_keys SET revoked_ns = %(revoked_ns)s WHERE key_id = %(key_id)s AND revoked_ns IS NULL
RETURNING key_id

-- name: configuration
SELECT number, source, host, document, delivers, record_id, before, mac
FROM configurations WHERE {where} ORDER BY number DESC LIMIT 1

-- name: put_configuration
INSERT INTO configurations (number, source, host, document, delivers, record_id, before, mac)
VALUES (%(number)s, %(source)s, %(host)s, %(document)s, %(delivers)s, %(record_id)s, %(before)s, %(mac)s)

-- name: pending_offers
SELECT
    changed.number, changed.document, records.stream_id, records.number,
    known.number, known.source, known.host, known.document, known.delivers, known.record_id, known.before, known.mac
FROM configurations AS changed
JOIN configurations AS known ON known.number = changed.before
JOIN audit_record_keys AS records ON records.record_id = changed.record_id
LEFT JOIN configuration_offers AS offers ON offers.number = changed.number
WHERE offers.number IS NULL
ORDER BY changed.number

-- name: end_offer
INSERT INTO configuration_offers (number, answer, ended_ns) VALUES (%(number)s, %(answer)s, %(now_ns)s)
ON CONFLICT (number) DO NOTHING

-- name: note_use
-- Skipped while another transaction stores a use of the same key: two that store several uses could deadlock.
INSERT INTO api_key_uses (key_id, used_ns)
SELECT %(key_id)s, %(used_ns)s WHERE pg_try_advisory_xact_lock(hashtextextended('use of ' || %(key_id)s, 0))
ON CONFLICT (key_id) DO UPDATE SET used_ns = greatest(api_key_uses.used_ns, excluded.used_ns)

-- name: remember
-- Each new key removes a few expired ones. Those that other transactions are removing are skipped.
WITH forgotten AS (
    DELETE FROM idempotency_keys WHERE (tenant_id, actor_id, route, key_sha256) IN (
        SELECT tenant_id, actor_id, route, key_sha256 FROM idempotency_keys
        WHERE expires_ns <= %(now_ns)s AND key_sha256 <> %(key_sha256)s
        ORDER BY expires_ns LIMIT 10
        FOR UPDATE SKIP LOCKED
    )
)
INSERT INTO idempotency_keys (tenant_id, actor_id, route, key_sha256, body_sha256, job_id, expires_ns)
VALUES (%(tenant_id)s, %(actor_id)s, %(route)s, %(key_sha256)s, %(body_sha256)s, %(job_id)s, %(expires_ns)s)
ON CONFLICT (tenant_id, actor_id, route, key_sha256) DO UPDATE
SET body_sha256 = excluded.body_sha256, job_id = excluded.job_id, expires_ns = excluded.expires_ns
WHERE idempotency_keys.expires_ns <= %(now_ns)s
RETURNING key_sha256

-- name: remembered
SELECT tenant_id, actor_id, route, key_sha256, body_sha256, job_id, expires_ns FROM idempotency_keys
WHERE tenant_id = %(tenant_id)s AND actor_id = %(actor_id)s AND route = %(route)s AND key_sha256 = %(key_sha256)s
    AND expires_ns > %(now_ns)s

-- Reads ---------------------------------------------------------------------------------------------------------------

-- name: job
SELECT document FROM jobs WHERE job_id = %(job_id)s AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)

-- name: jobs
SELECT document FROM jobs WHERE {where} ORDER BY created_ns DESC, job_id DESC LIMIT %(limit)s

-- name: runs
SELECT document FROM job_runs WHERE job_id = %(job_id)s ORDER BY number

-- name: inputs
SELECT name, size, sha256 FROM job_inputs WHERE job_id = %(job_id)s ORDER BY name

-- name: input_payload
SELECT payload FROM job_inputs WHERE job_id = %(job_id)s AND name = %(name)s

-- name: artifacts
SELECT name, size, sha256 FROM job_artifacts WHERE job_id = %(job_id)s AND run = %(run)s ORDER BY name

-- name: artifact_part
SELECT substr(payload, CAST(%(begin)s AS integer), CAST(%(count)s AS integer)) FROM job_artifacts WHERE job_id = %(job_id)s AND run = %(run)s AND name = %(name)s

-- name: secrets
SELECT name, ciphertext FROM job_secrets WHERE job_id = %(job_id)s

-- name: api_keys
SELECT * FROM present_api_keys WHERE {where} ORDER BY created_ns, name

-- name: keys_on_record
SELECT * FROM api_keys_on_record WHERE {where} ORDER BY key_id

-- name: created_without_key
SELECT record_id, event_name, body FROM key_records
WHERE event_name = 'key.create' AND NOT EXISTS (
    SELECT FROM api_keys WHERE name = target_id
        AND tenant_id = comparable_json(body) -> 'attributes' -> 'auditrace.changes' -> 'tenant' ->> 'to')

-- name: key_uses
SELECT key_id, used_ns FROM api_key_uses

-- name: stored_bytes
SELECT coalesce(sum(bytes), 0) FROM tenant_storage WHERE tenant_id = %(tenant_id)s

-- name: job_counts
SELECT status, count(*) FROM jobs GROUP BY status

-- name: next_due
SELECT min(not_before_ns) FROM jobs WHERE status = 'queued'

-- name: cancelled_runs
SELECT job_id FROM job_runs JOIN jobs USING (job_id)
WHERE lease_until_ns IS NOT NULL AND worker_id = %(worker_id)s AND jobs.status = 'cancelled'

-- name: now
SELECT ledger_now_ns()

-- name: announced
-- The keys of lane transactions, in microseconds since the epoch; no other locks have keys in this range.
SELECT key FROM (
    SELECT (classid::bigint << 32) | objid::bigint AS key FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND mode = 'ShareLock' AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS held
WHERE key BETWEEN 1000000000000000 AND %(until)s
ORDER BY key

-- name: await_announced
-- The functions are evaluated from left to right: the lock is released at once, because only the wait is needed.
SELECT pg_advisory_lock(%(key)s), pg_advisory_unlock(%(key)s)

-- name: records
SELECT
    records.record_id, records.stream_id, records.number, hash, event_name, observed_ns, body,
    CASE
        WHEN parked_records.number IS NOT NULL THEN 'parked'
        WHEN records.number <= cursors.number THEN 'delivered'
        ELSE 'committed'
    END,
    observed_ns, records.stream_id
FROM audit_records AS records
JOIN delivery_cursors AS cursors USING (stream_id)
LEFT JOIN parked_records
    ON parked_records.stream_id = records.stream_id AND parked_records.number = records.number
WHERE observed_ns <= %(before_ns)s AND (observed_ns, records.stream_id) < (%(before_ns)s, %(before_id)s) AND {where}
ORDER BY observed_ns DESC, records.stream_id DESC LIMIT %(limit)s

-- name: places_before
SELECT observed_ns, stream_id FROM audit_records AS records
WHERE observed_ns <= %(before_ns)s AND (observed_ns, stream_id) < (%(before_ns)s, %(before_id)s) AND {where}
ORDER BY observed_ns DESC, stream_id DESC LIMIT %(limit)s

-- name: places_behind
SELECT observed_ns, stream_id FROM audit_records AS records
WHERE observed_ns >= %(behind_ns)s AND (observed_ns, stream_id) > (%(behind_ns)s, %(behind_id)s)
    AND observed_ns < %(newest)s AND {where}
ORDER BY observed_ns, stream_id LIMIT %(limit)s

-- name: next_event_name
SELECT min(event_name) FROM audit_records WHERE tenant_id = %(tenant_id)s AND event_name > %(behind)s

-- name: next_result
SELECT min(result) FROM audit_records WHERE tenant_id = %(tenant_id)s AND result > %(behind)s

-- name: stated_versions
-- The draft of a job, its confirmation, its first place in the queue, and a given version, in order; each with its
-- record, the tip of the record's stream, and the record behind it.
SELECT
    versions.version, versions.status, records.record_id, records.stream_id, records.number, records.hash, records.body,
    streams.number, streams.hash, streams.mac, following.body
FROM job_versions AS versions
LEFT JOIN audit_record_keys AS keys ON keys.record_id = versions.record_id
LEFT JOIN audit_records AS records ON records.stream_id = keys.stream_id AND records.observed_ns = keys.observed_ns
LEFT JOIN audit_streams AS streams ON streams.stream_id = keys.stream_id
LEFT JOIN audit_record_keys AS next ON next.stream_id = keys.stream_id AND next.number = keys.number + 1
LEFT JOIN audit_records AS following ON following.stream_id = next.stream_id AND following.observed_ns = next.observed_ns
WHERE versions.job_id = %(job_id)s AND versions.version <= %(version)s AND (
    versions.status IN ('draft_ready', 'confirmed') OR versions.version = %(version)s
    OR versions.version = (SELECT min(version) FROM job_versions WHERE job_id = %(job_id)s AND status = 'queued')
)
ORDER BY versions.version

-- name: record
SELECT
    records.record_id, records.stream_id, records.number, hash, event_name, records.observed_ns, body,
    CASE
        WHEN parked_records.number IS NOT NULL THEN 'parked'
        WHEN records.number <= cursors.number THEN 'delivered'
        ELSE 'committed'
    END
FROM audit_record_keys AS keys
JOIN audit_records AS records ON records.stream_id = keys.stream_id AND records.observed_ns = keys.observed_ns
JOIN delivery_cursors AS cursors ON cursors.stream_id = keys.stream_id
LEFT JOIN parked_records ON parked_records.stream_id = keys.stream_id AND parked_records.number = keys.number
WHERE keys.record_id = %(record_id)s AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)

-- name: anchored
SELECT coalesce(max(number), 0) FROM audit_anchors WHERE stream_id = %(stream_id)s

-- name: hashes_of_stream
SELECT hash FROM audit_records
WHERE stream_id = %(stream_id)s AND number BETWEEN %(first)s AND %(last)s AND observed_ns >= (
    SELECT observed_ns FROM audit_record_keys WHERE stream_id = %(stream_id)s AND number >= %(first)s
    ORDER BY number LIMIT 1
)
ORDER BY observed_ns

-- name: stored
SELECT
    otlp, resource, scope,
    records.record_id, records.stream_id, records.number, hash, event_name, observed_ns, body,
    CASE
        WHEN parked_records.number IS NOT NULL THEN 'parked'
        WHEN records.number <= cursors.number THEN 'delivered'
        ELSE 'committed'
    END,
    observed_ns, records.stream_id
FROM audit_records AS records
JOIN audit_envelopes USING (envelope_id)
JOIN delivery_cursors AS cursors USING (stream_id)
LEFT JOIN parked_records
    ON parked_records.stream_id = records.stream_id AND parked_records.number = records.number
WHERE observed_ns >= %(behind_ns)s AND (observed_ns, records.stream_id) > (%(behind_ns)s, %(behind_id)s)
    AND observed_ns < %(newest)s AND {where}
ORDER BY observed_ns, records.stream_id LIMIT %(limit)s

-- name: stored_of_stream
SELECT
    otlp, resource, scope,
    records.record_id, records.stream_id, records.number, hash, event_name, observed_ns, body,
    CASE
        WHEN parked_records.number IS NOT NULL THEN 'parked'
        WHEN records.number <= cursors.number THEN 'delivered'
        ELSE 'committed'
    END
FROM audit_records AS records
JOIN audit_envelopes USING (envelope_id)
JOIN delivery_cursors AS cursors USING (stream_id)
LEFT JOIN parked_records
    ON parked_records.stream_id = records.stream_id AND parked_records.number = records.number
WHERE records.stream_id = %(stream_id)s AND records.number BETWEEN %(first)s AND %(last)s
ORDER BY records.number LIMIT %(limit)s

-- name: streams
SELECT
    stream_id, opened_ns, streams.number, streams.hash, observed_ns, streams.closed, cursors.number, anchors.number,
    anchors.checkpoint
FROM audit_streams AS streams
JOIN delivery_cursors AS cursors USING (stream_id)
LEFT JOIN audit_anchors AS anchors USING (stream_id)
WHERE %(before_ns)s::bigint IS NULL OR (opened_ns, stream_id) < (%(before_ns)s, %(before_id)s)
ORDER BY opened_ns DESC, stream_id DESC
LIMIT %(limit)s

-- name: checkpoints
SELECT
    checkpoints.number, fingerprint, signature,
    records.record_id, records.stream_id, records.number, records.hash, event_name, records.observed_ns, body,
    CASE
        WHEN parked_records.number IS NOT NULL THEN 'parked'
        WHEN records.number <= cursors.number THEN 'delivered'
        ELSE 'committed'
    END
FROM audit_checkpoints AS checkpoints
JOIN audit_records AS records
    ON records.observed_ns = checkpoints.observed_ns AND records.record_id = checkpoints.record_id
JOIN delivery_cursors AS cursors USING (stream_id)
LEFT JOIN parked_records
    ON parked_records.stream_id = records.stream_id AND parked_records.number = records.number
WHERE %(before)s::bigint IS NULL OR checkpoints.number < %(before)s
ORDER BY checkpoints.number DESC
LIMIT %(limit)s

-- name: checkpoints_behind
SELECT
    checkpoints.number, fingerprint, signature,
    records.record_id, records.stream_id, records.number, records.hash, event_name, records.observed_ns, body,
    CASE
        WHEN parked_records.number IS NOT NULL THEN 'parked'
        WHEN records.number <= cursors.number THEN 'delivered'
        ELSE 'committed'
    END
FROM audit_checkpoints AS checkpoints
JOIN audit_records AS records
    ON records.observed_ns = checkpoints.observed_ns AND records.record_id = checkpoints.record_id
JOIN delivery_cursors AS cursors USING (stream_id)
LEFT JOIN parked_records
    ON parked_records.stream_id = records.stream_id AND parked_records.number = records.number
WHERE checkpoints.number > %(behind)s
ORDER BY checkpoints.number
LIMIT %(limit)s

-- name: checkpoint_before
SELECT coalesce(max(number), 0) FROM audit_checkpoints WHERE observed_ns < %(observed_ns)s

-- name: outbox_state
WITH lagging AS (
    SELECT stream_id, cursors.number AS delivered, streams.number AS committed
    FROM delivery_cursors AS cursors JOIN audit_streams AS streams USING (stream_id)
    WHERE cursors.number < streams.number
)
SELECT
    (SELECT coalesce(sum(committed - delivered), 0)::bigint FROM lagging),
    (SELECT min(observed_ns) FROM audit_record_keys AS keys JOIN lagging
        ON keys.stream_id = lagging.stream_id AND keys.number = lagging.delivered + 1),
    (SELECT count(*) FROM parked_records)

-- Checkpoints ---------------------------------------------------------------------------------------------------------

-- name: one_at_a_time
-- Checkpoints and rotations of all processes run one after another: each continues behind the commit of the last one.
SELECT pg_advisory_xact_lock(hashtext('auditrace checkpoints'))

-- name: take_lease
-- Also takes a lease that ends too far ahead, because it was taken before the clock stepped back.
INSERT INTO leases (name, owner, epoch, until_ns) VALUES (%(name)s, %(owner)s, 1, ledger_now_ns() + %(lease_ns)s)
ON CONFLICT (name) DO UPDATE SET
    epoch = CASE WHEN leases.owner = excluded.owner THEN leases.epoch ELSE leases.epoch + 1 END,
    owner = excluded.owner,
    until_ns = excluded.until_ns
WHERE leases.owner = excluded.owner OR leases.until_ns NOT BETWEEN ledger_now_ns() AND ledger_now_ns() + 2 * %(lease_ns)s
RETURNING epoch

-- name: release_lease
UPDATE leases SET until_ns = 0 WHERE name = %(name)s AND owner = %(owner)s

-- name: orphaned_streams
SELECT stream_id, session FROM audit_streams
WHERE closed = 0 AND stream_id <> %(own)s
    AND alive_until_ns NOT BETWEEN ledger_now_ns() AND ledger_now_ns() + 2 * %(lease_ns)s
ORDER BY opened_ns, stream_id

-- name: close_orphan
-- The stream is locked before the check, so that its lane commits nothing more. If its lane locks it, it is skipped.
UPDATE audit_streams SET closed = 1 WHERE stream_id = (
    SELECT stream_id FROM audit_streams
    WHERE stream_id = %(stream_id)s AND closed = 0
        AND alive_until_ns NOT BETWEEN ledger_now_ns() AND ledger_now_ns() + 2 * %(lease_ns)s
    FOR NO KEY UPDATE SKIP LOCKED
)
RETURNING stream_id

-- name: streams_to_anchor
-- Streams that are open, or that differ from what the last checkpoint named.
SELECT
    streams.stream_id, streams.owner, streams.epoch, streams.number, streams.hash, streams.record_id, streams.mac,
    streams.closed, streams.alive_until_ns, anchors.number, anchors.hash, anchors.closed, anchors.checkpoint, anchors.mac
FROM audit_streams AS streams LEFT JOIN audit_anchors AS anchors USING (stream_id)
WHERE streams.closed = 0 OR anchors.closed IS DISTINCT FROM 1
    OR streams.number <> anchors.number OR streams.hash <> anchors.hash
ORDER BY streams.opened_ns, streams.stream_id

-- name: streams_overgrown
-- Streams with records outside of 1 to their tip: lanes write none there, because they move the tip with each record.
-- The ends of each stream take two reads of the index, whatever the statistics are. If the statistics know only a few
-- large streams, EXISTS would be planned as a scan of all keys for each stream.
SELECT stream_id, first, last FROM (
    SELECT
        stream_id, number,
        (SELECT min(number) FROM audit_record_keys AS keys WHERE keys.stream_id = streams.stream_id) AS first,
        (SELECT max(number) FROM audit_record_keys AS keys WHERE keys.stream_id = streams.stream_id) AS last
    FROM audit_streams AS streams
) AS extents
WHERE last > number OR first < 1

-- name: records_of_stream
SELECT number, record_id, hash, body FROM audit_records
WHERE stream_id = %(stream_id)s AND number BETWEEN %(first)s AND %(last)s AND observed_ns >= (
    SELECT observed_ns FROM audit_record_keys WHERE stream_id = %(stream_id)s AND number >= %(first)s
    ORDER BY number LIMIT 1
)
ORDER BY observed_ns

-- name: last_checkpoint
SELECT number, record_id, hash, signature, fingerprint, streams, records, observed_ns, mac FROM audit_checkpoints
ORDER BY number DESC LIMIT 1

-- name: hash_of_checkpoint
SELECT hash FROM audit_checkpoints WHERE number = %(number)s

-- name: anchor_totals
SELECT count(*), coalesce(sum(number), 0)::bigint FROM audit_anchors

-- name: add_checkpoint
INSERT INTO audit_checkpoints (number, record_id, hash, signature, fingerprint, streams, records, observed_ns, mac)
VALUES (
    %(number)s, %(record_id)s, %(hash)s, %(signature)s, %(fingerprint)s, %(streams)s, %(records)s, %(observed_ns)s,
    %(mac)s
)

-- name: move_anchor
UPDATE audit_anchors
SET number = %(number)s, hash = %(hash)s, closed = %(closed)s, checkpoint = %(checkpoint)s, mac = %(mac)s
WHERE stream_id = %(stream_id)s
RETURNING stream_id

-- name: add_anchor
INSERT INTO audit_anchors (stream_id, number, hash, closed, checkpoint, mac)
VALUES (%(stream_id)s, %(number)s, %(hash)s, %(closed)s, %(checkpoint)s, %(mac)s)

-- name: refused_streams
SELECT stream_id, reason FROM refused_streams ORDER BY stream_id

-- name: disowned_streams
SELECT stream_id, reason FROM refused_streams WHERE disowned = 1

-- name: forget_refused
DELETE FROM refused_streams WHERE stream_id = %(stream_id)s AND disowned = 0

-- name: put_refused
INSERT INTO refused_streams (stream_id, reason, since_ns, disowned)
VALUES (%(stream_id)s, %(reason)s, ledger_now_ns(), 0)
ON CONFLICT (stream_id) DO UPDATE SET reason = excluded.reason

-- name: signing_keys
SELECT number, fingerprint, public_key, first_checkpoint, rotation, mac FROM signing_keys ORDER BY number

-- name: has_signed
SELECT EXISTS (SELECT FROM signing_keys) OR EXISTS (SELECT FROM audit_checkpoints)

-- name: register_key
INSERT INTO signing_keys (number, fingerprint, public_key, first_checkpoint, registered_ns, rotation, mac)
VALUES (
    %(number)s, %(fingerprint)s, %(public_key)s, %(first_checkpoint)s, ledger_now_ns(), %(rotation)s, %(mac)s
)

-- name: all_records
SELECT NULL, body, otlp, resource, scope FROM audit_records JOIN audit_envelopes USING (envelope_id)
ORDER BY observed_ns, stream_id

-- Delivery ------------------------------------------------------------------------------------------------------------

-- name: relaxed
-- The relay need not wait for the disk: if a crash sets a cursor back, the only effect is identical duplicates.
SET synchronous_commit = off

-- name: lagging_streams
SELECT
    stream_id, cursors.number, streams.number, streams.closed = 1,
    cursors.owner <> %(owner)s AND until_ns BETWEEN ledger_now_ns() AND ledger_now_ns() + 2 * %(lease_ns)s, until_ns
FROM delivery_cursors AS cursors JOIN audit_streams AS streams USING (stream_id)
WHERE cursors.number < streams.number
ORDER BY stream_id

-- name: take_streams
-- Streams behind the turn come first. Cursors that another relay is taking or moving at this moment are skipped.
UPDATE delivery_cursors SET owner = %(owner)s, epoch = epoch + 1, until_ns = ledger_now_ns() + %(lease_ns)s
WHERE stream_id IN (
    SELECT stream_id FROM delivery_cursors AS cursors JOIN audit_streams AS streams USING (stream_id)
    WHERE cursors.number < streams.number
        AND until_ns NOT BETWEEN ledger_now_ns() AND ledger_now_ns() + 2 * %(lease_ns)s
    ORDER BY stream_id <= %(turn)s, stream_id LIMIT %(limit)s
    FOR NO KEY UPDATE OF cursors SKIP LOCKED
)

-- name: held_streams
SELECT stream_id, cursors.number, cursors.epoch
FROM delivery_cursors AS cursors JOIN audit_streams AS streams USING (stream_id)
WHERE cursors.number < streams.number AND cursors.owner = %(owner)s
    AND until_ns BETWEEN ledger_now_ns() AND ledger_now_ns() + 2 * %(lease_ns)s
ORDER BY stream_id <= %(turn)s, stream_id

-- name: renew_streams
UPDATE delivery_cursors AS cursors SET until_ns = ledger_now_ns() + %(lease_ns)s
FROM audit_streams AS streams
WHERE streams.stream_id = cursors.stream_id AND cursors.number < streams.number AND cursors.owner = %(owner)s
    AND until_ns BETWEEN ledger_now_ns() AND ledger_now_ns() + %(due_ns)s

-- name: release_streams
UPDATE delivery_cursors SET until_ns = 0 WHERE owner = %(owner)s AND until_ns > 0

-- name: undelivered
-- Returns one record more than fits, so that a record that is too large for any batch is returned too.
SELECT number, record_id, otlp, resource, scope, event_name FROM (
    SELECT
        number, record_id, otlp, envelope_id, event_name, observed_ns,
        sum(octet_length(otlp)) OVER (ORDER BY observed_ns) - octet_length(otlp) AS before_bytes
    FROM audit_records
    WHERE stream_id = %(stream_id)s AND number > %(after)s AND observed_ns >= (
        SELECT observed_ns FROM audit_record_keys WHERE stream_id = %(stream_id)s AND number > %(after)s
        ORDER BY number LIMIT 1
    )
    ORDER BY observed_ns LIMIT %(limit)s
) AS records JOIN audit_envelopes USING (envelope_id)
WHERE before_bytes <= %(max_bytes)s
ORDER BY observed_ns

-- name: checkpoint_waits
-- A checkpoint waits for every existing record that it names and that is neither delivered nor parked.
SELECT EXISTS (
    SELECT FROM audit_record_keys AS keys
    JOIN audit_records AS records ON records.stream_id = keys.stream_id AND records.observed_ns = keys.observed_ns
    CROSS JOIN jsonb_array_elements(
        comparable_json(records.body) -> 'attributes' -> 'auditrace.checkpoint.tips'
    ) AS tip
    JOIN delivery_cursors AS cursors ON cursors.stream_id = tip ->> 'stream_id'
    JOIN audit_streams AS streams ON streams.stream_id = cursors.stream_id
    WHERE keys.stream_id = %(stream_id)s AND keys.number = %(number)s
        AND cursors.number < least((tip ->> 'number')::bigint, streams.number)
)

-- name: move_cursor
-- Also succeeds if the cursor is there already: an earlier attempt moved it, and its answer was lost.
UPDATE delivery_cursors SET number = greatest(number, %(last)s)
WHERE stream_id = %(stream_id)s AND owner = %(owner)s AND epoch = %(epoch)s
    AND number BETWEEN %(first)s - 1 AND %(last)s
RETURNING number

-- name: park
INSERT INTO parked_records (stream_id, number, reason, parked_ns)
VALUES (%(stream_id)s, %(number)s, %(reason)s, ledger_now_ns())
ON CONFLICT DO NOTHING

-- name: unpark
DELETE FROM parked_records WHERE stream_id = %(stream_id)s AND number = %(number)s

-- name: answered
UPDATE parked_records SET reason = %(reason)s WHERE stream_id = %(stream_id)s AND number = %(number)s

-- name: parked_count
SELECT count(*) FROM parked_records

-- name: parked
SELECT keys.stream_id, keys.number, keys.record_id, otlp, resource, scope
FROM parked_records AS parked
JOIN audit_record_keys AS keys ON keys.stream_id = parked.stream_id AND keys.number = parked.number
JOIN audit_records AS records ON records.stream_id = keys.stream_id AND records.observed_ns = keys.observed_ns
JOIN audit_envelopes USING (envelope_id)
WHERE (parked.stream_id, parked.number) > (%(stream_id)s, %(number)s)
ORDER BY parked.stream_id, parked.number LIMIT %(limit)s

-- name: delivered_before
SELECT keys.stream_id, keys.number, keys.record_id, otlp, resource, scope
FROM audit_record_keys AS keys
JOIN delivery_cursors AS cursors ON cursors.stream_id = keys.stream_id
JOIN audit_records AS records ON records.stream_id = keys.stream_id AND records.observed_ns = keys.observed_ns
JOIN audit_envelopes USING (envelope_id)
LEFT JOIN parked_records AS parked ON parked.stream_id = keys.stream_id AND parked.number = keys.number
WHERE keys.stream_id = %(stream_id)s AND keys.number < %(number)s AND keys.number <= cursors.number
    AND parked_ns IS NULL
ORDER BY keys.number DESC LIMIT 1

-- name: delivered_elsewhere
SELECT last.* FROM (
    SELECT stream_id, cursors.number FROM delivery_cursors AS cursors JOIN audit_streams USING (stream_id)
    WHERE stream_id <> %(stream_id)s AND cursors.number > 0
    ORDER BY opened_ns DESC
) AS others CROSS JOIN LATERAL (
    SELECT keys.stream_id, keys.number, keys.record_id, otlp, resource, scope
    FROM audit_record_keys AS keys
    JOIN audit_records AS records ON records.stream_id = keys.stream_id AND records.observed_ns = keys.observed_ns
    JOIN audit_envelopes USING (envelope_id)
    LEFT JOIN parked_records AS parked ON parked.stream_id = keys.stream_id AND parked.number = keys.number
    WHERE keys.stream_id = others.stream_id AND keys.number <= others.number AND parked_ns IS NULL
    ORDER BY keys.number DESC LIMIT 1
) AS last LIMIT 1

-- name: delivered_count
-- The count of delivered records; parked ones are not delivered.
SELECT (
    (SELECT coalesce(sum(number), 0) FROM delivery_cursors) - (SELECT count(*) FROM parked_records)
)::bigint

-- name: last_place
SELECT coalesce((SELECT observed_ns FROM audit_records ORDER BY observed_ns DESC LIMIT 1), 0)

-- name: records_behind
-- In the order of time, in which a checkpoint comes after the records that it names. Returns one record more than fits,
-- so that a record that is too large for any batch is returned too. Undelivered records are returned too, with a mark,
-- so that the caller can move past them.
SELECT
    records.observed_ns, records.number <= cursors.number AND parked_ns IS NULL,
    records.stream_id, records.number, record_id, otlp, resource, scope
FROM (
    SELECT
        observed_ns, stream_id, number, record_id, otlp, envelope_id,
        sum(octet_length(otlp)) OVER (ORDER BY observed_ns, stream_id) - octet_length(otlp) AS before_bytes
    FROM audit_records
    WHERE (observed_ns, stream_id) > (%(observed_ns)s, %(stream_id)s)
        AND observed_ns BETWEEN %(observed_ns)s AND %(last)s
    ORDER BY observed_ns, stream_id LIMIT %(limit)s
) AS records
JOIN audit_envelopes USING (envelope_id)
JOIN delivery_cursors AS cursors ON cursors.stream_id = records.stream_id
LEFT JOIN parked_records AS parked ON parked.stream_id = records.stream_id AND parked.number = records.number
WHERE before_bytes <= %(max_bytes)s
ORDER BY records.observed_ns, records.stream_id

-- name: replay
-- The progress of a replay is stored with the leases: with another table, processes of the previous release could not
-- open the database. The epoch is the number of records that the replay has passed.
SELECT owner, epoch FROM leases WHERE name = %(name)s

-- name: put_replay
INSERT INTO leases (name, owner, epoch, until_ns) VALUES (%(name)s, %(place)s, %(records)s, 0)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, epoch = excluded.epoch WHERE excluded.epoch > leases.epoch

-- name: forget_replay
DELETE FROM leases WHERE name = %(name)s

-- name: cursor
SELECT number FROM delivery_cursors WHERE stream_id = %(stream_id)s

-- name: delivered_count_from
SELECT greatest(0, cursors.number + 1 - %(first)s::bigint) - (
    SELECT count(*) FROM parked_records AS parked
    WHERE parked.stream_id = cursors.stream_id AND parked.number >= %(first)s
) FROM delivery_cursors AS cursors WHERE stream_id = %(stream_id)s

-- name: delivered_from
SELECT keys.stream_id, keys.number, keys.record_id, otlp, resource, scope
FROM audit_record_keys AS keys
JOIN audit_records AS records ON records.stream_id = keys.stream_id AND records.observed_ns = keys.observed_ns
JOIN audit_envelopes USING (envelope_id)
LEFT JOIN parked_records AS parked ON parked.stream_id = keys.stream_id AND parked.number = keys.number
WHERE keys.stream_id = %(stream_id)s AND keys.number BETWEEN %(first)s AND %(last)s AND parked_ns IS NULL
ORDER BY keys.number LIMIT %(limit)s

-- Webhooks ------------------------------------------------------------------------------------------------------------

-- name: register_webhook
INSERT INTO webhook_endpoints (name, registered_ns) VALUES (%(endpoint)s, ledger_now_ns())
ON CONFLICT DO NOTHING RETURNING name

-- name: webhook_begins_at_the_end
INSERT INTO webhook_cursors (endpoint, stream_id, number) SELECT %(endpoint)s, stream_id, number FROM audit_streams

-- name: webhook_streams
SELECT streams.stream_id, coalesce(cursors.number, 0), streams.number
FROM audit_streams AS streams
LEFT JOIN webhook_cursors AS cursors ON cursors.endpoint = %(endpoint)s AND cursors.stream_id = streams.stream_id
WHERE streams.number > coalesce(cursors.number, 0)
ORDER BY streams.opened_ns, streams.stream_id

-- name: webhook_records
-- The index of records is by time, in which the numbers of a stream have the same order.
SELECT records.record_id, records.number, hash, event_name, body FROM audit_records AS records
WHERE records.stream_id = %(of_stream)s AND records.number > %(after)s AND records.number <= %(upto)s
    AND observed_ns >= (
        SELECT observed_ns FROM audit_record_keys WHERE stream_id = %(of_stream)s AND number > %(after)s
        ORDER BY number LIMIT 1
    )
    AND observed_ns <= (
        SELECT observed_ns FROM audit_record_keys WHERE stream_id = %(of_stream)s AND number <= %(upto)s
        ORDER BY number DESC LIMIT 1
    )
    AND {where}
ORDER BY observed_ns LIMIT %(limit)s

-- name: webhook_is_held
-- Locked, so that nobody takes the lease before the commit.
SELECT 1 FROM leases WHERE name = %(name)s AND owner = %(owner)s FOR SHARE

-- name: move_webhook_cursor
-- A cursor that is already further stays there.
INSERT INTO webhook_cursors (endpoint, stream_id, number) VALUES (%(endpoint)s, %(stream_id)s, %(number)s)
ON CONFLICT (endpoint, stream_id) DO UPDATE SET number = greatest(webhook_cursors.number, excluded.number)

-- name: note_webhook
UPDATE webhook_endpoints SET error = %(error)s, failing_since_ns = %(failing_since_ns)s WHERE name = %(endpoint)s

-- name: webhook_state
SELECT error, failing_since_ns FROM webhook_endpoints WHERE name = %(endpoint)s

-- name: webhook_backlog
WITH behind AS (
    SELECT streams.stream_id, coalesce(cursors.number, 0) AS passed, streams.number AS committed
    FROM audit_streams AS streams
    LEFT JOIN webhook_cursors AS cursors ON cursors.endpoint = %(endpoint)s AND cursors.stream_id = streams.stream_id
    WHERE streams.number > coalesce(cursors.number, 0)
)
SELECT
    (SELECT coalesce(sum(committed - passed), 0)::bigint FROM behind),
    (SELECT min(observed_ns) FROM behind JOIN audit_record_keys AS keys
        ON keys.stream_id = behind.stream_id AND keys.number = behind.passed + 1)

-- Deployment ----------------------------------------------------------------------------------------------------------

-- name: has_table
SELECT to_regclass(%(name)s) IS NOT NULL

-- name: has_streams
SELECT EXISTS (SELECT FROM audit_streams)

-- name: may_create
SELECT current_schema(), coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)

-- name: durability
-- The last column: no standby that must confirm is connected. Only a role that may read statistics, on a server that is
-- no standby, can see the connected ones.
SELECT
    current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_standby_names'),
    pg_has_role('pg_read_all_stats', 'USAGE') AND NOT pg_is_in_recovery()
        AND NOT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))

-- name: own_pid
-- Asked of the server, because the greeting of a pooler has another number.
SELECT pg_backend_pid()

-- name: listen
LISTEN auditrace

-- name: hint
NOTIFY auditrace

-- Restore -------------------------------------------------------------------------------------------------------------

-- name: streams_at_work
SELECT stream_id FROM audit_streams
WHERE closed = 0 AND stream_id <> %(own)s
    AND alive_until_ns BETWEEN ledger_now_ns() AND ledger_now_ns() + 2 * %(lease_ns)s

-- name: end_streams
UPDATE audit_streams SET closed = 1 WHERE closed = 0 AND stream_id <> %(own)s RETURNING stream_id
