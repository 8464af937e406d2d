-- The checks of the reconciliation. Each statement has the name of its check, and returns each contradiction with its
-- place and a description.

-- name: version_without_record
SELECT 'job ' || job_id || ' version ' || version, 'its record ' || record_id || ' does not exist'
FROM job_versions AS versions
WHERE NOT EXISTS (SELECT 1 FROM audit_records WHERE audit_records.record_id = versions.record_id)

-- name: record_without_version
SELECT
    'record ' || record_id,
    'it states version ' || target_version || ' of job ' || versioned_job || ', which has '
        || coalesce('record ' || (
            SELECT versions.record_id FROM job_versions AS versions
            WHERE versions.job_id = versioned_job AND versions.version = target_version
        ), 'no such version')
FROM audit_records AS records
WHERE versioned_job IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM job_versions AS versions
    WHERE (versions.job_id, versions.version, versions.record_id) = (versioned_job, target_version, records.record_id)
)

-- name: version_gap
SELECT 'job ' || job_id, count(*) || ' versions, numbered ' || min(version) || ' to ' || max(version)
FROM job_versions GROUP BY job_id HAVING min(version) <> 1 OR max(version) <> count(*)

-- name: job_differs
-- The hash of the document is checked in Python, with the other hashes.
SELECT
    'job ' || job_id,
    'it is ' || jobs.status || ' at version ' || jobs.version || '; its history ends with '
        || coalesce(last.status || ' at version ' || last.version, 'nothing')
FROM jobs LEFT JOIN (
    SELECT job_id, status, max(version) AS version FROM job_versions GROUP BY job_id
) AS last USING (job_id)
WHERE last.version IS NOT jobs.version OR last.status IS NOT jobs.status

-- name: change_differs
-- A record must state the change of status that the job's history has at that version.
SELECT
    'record ' || records.record_id,
    'it states ' || coalesce(stated, 'no change of status') || '; job ' || after.job_id || ' went from '
        || coalesce(before.status, 'nothing') || ' to ' || after.status || ' at version ' || after.version
FROM (
    SELECT
        record_id, versioned_job, target_version,
        json_extract(body, '$.attributes."auditrace.changes".status') AS stated
    FROM audit_records WHERE versioned_job IS NOT NULL
) AS records
JOIN job_versions AS after ON after.job_id = versioned_job AND after.version = target_version
LEFT JOIN job_versions AS before ON before.job_id = after.job_id AND before.version = after.version - 1
WHERE iif(
    stated IS NULL,
    before.status IS NOT after.status,
    json_extract(stated, '$.from') IS NOT before.status OR json_extract(stated, '$.to') IS NOT after.status
)

-- name: run_differs
SELECT 'job ' || job_runs.job_id || ' run ' || job_runs.number, 'a column beside its document says something else'
FROM job_runs
WHERE (job_runs.job_id, job_runs.number, job_runs.status, job_runs.worker_id) IS NOT (
    json_extract(document, '$.job_id'), json_extract(document, '$.number'), json_extract(document, '$.status'),
    json_extract(document, '$.worker_id')
)
UNION ALL
SELECT
    'job ' || jobs.job_id,
    'it is at run ' || json_extract(jobs.document, '$.run') || ', and has ' || count(job_runs.number) || ' runs'
FROM jobs LEFT JOIN job_runs USING (job_id)
GROUP BY jobs.job_id
HAVING count(job_runs.number) <> json_extract(jobs.document, '$.run')
    OR coalesce(max(job_runs.number), 0) <> json_extract(jobs.document, '$.run')

-- name: input_without_record
-- The last record of an input must state the hash of its bytes.
SELECT 'job ' || job_id || ' input ' || name, 'no record states these bytes as its last'
FROM job_inputs AS inputs
WHERE sha256 IS NOT (
    SELECT json_extract(body, '$.attributes."auditrace.changes".sha256.to') FROM audit_records AS records
    WHERE records.job_id = inputs.job_id AND event_name = 'input.write' AND result = 'success'
        AND json_extract(body, '$.attributes."auditrace.changes".name.to') = inputs.name
    ORDER BY position DESC LIMIT 1
)

-- name: tip_differs
-- The row of a stream must name its last record.
SELECT
    'stream ' || streams.stream_id,
    'its tip is number ' || streams.number || '; its last record is '
        || iif(last.number IS streams.number, 'another one', coalesce('number ' || last.number, 'missing'))
FROM audit_streams AS streams LEFT JOIN audit_records AS last ON last.stream_id = streams.stream_id
    AND last.number = (SELECT max(number) FROM audit_records WHERE audit_records.stream_id = streams.stream_id)
WHERE (last.number, last.hash, last.record_id, last.observed_ns)
    IS NOT (streams.number, streams.hash, streams.record_id, streams.observed_ns)

-- name: cursor_differs
-- Every stream must have a cursor, which never passes its tip.
SELECT
    'stream ' || stream_id,
    coalesce(
        'its cursor is at ' || delivery_cursors.number || ', and its tip is ' || audit_streams.number,
        'it has no cursor'
    )
FROM audit_streams LEFT JOIN delivery_cursors USING (stream_id)
WHERE delivery_cursors.number IS NULL OR delivery_cursors.number NOT BETWEEN 0 AND audit_streams.number

-- name: outbox_differs
-- The count of waiting records by cursor and tip must be the count of records behind the cursor.
SELECT
    'stream ' || stream_id,
    audit_streams.number - delivery_cursors.number || ' records should wait for delivery, and ' || waiting || ' do'
FROM audit_streams JOIN delivery_cursors USING (stream_id) JOIN (
    SELECT stream_id, (
        SELECT count(*) FROM audit_records
        WHERE audit_records.stream_id = delivery_cursors.stream_id AND audit_records.number > delivery_cursors.number
    ) AS waiting
    FROM delivery_cursors
) USING (stream_id)
WHERE audit_streams.number >= delivery_cursors.number AND waiting <> audit_streams.number - delivery_cursors.number

-- name: parked
SELECT
    'stream ' || stream_id || ' number ' || parked_records.number,
    iif(
        parked_records.number <= delivery_cursors.number,
        'record ' || coalesce(record_id, '?') || ' is parked, the sink said: ' || reason,
        'a record is parked that was not tried yet'
    )
FROM parked_records
LEFT JOIN delivery_cursors USING (stream_id)
LEFT JOIN audit_records USING (stream_id, number)
ORDER BY stream_id, parked_records.number

-- name: checkpoint_differs
-- Every checkpoint must have a row and a record that agree.
SELECT 'checkpoint ' || checkpoints.number, 'its row is not what its record ' || checkpoints.record_id || ' says'
FROM audit_checkpoints AS checkpoints LEFT JOIN audit_records AS records USING (record_id)
WHERE (records.event_name, records.hash, records.observed_ns)
        IS NOT ('audit.checkpoint', checkpoints.hash, checkpoints.observed_ns)
    OR (
        json_extract(body, '$.attributes."auditrace.checkpoint.number"'),
        json_extract(body, '$.attributes."auditrace.checkpoint.streams"'),
        json_extract(body, '$.attributes."auditrace.checkpoint.records"')
    ) IS NOT (checkpoints.number, checkpoints.streams, checkpoints.records)
UNION ALL
SELECT
    'record ' || record_id,
    'it is checkpoint ' || json_extract(body, '$.attributes."auditrace.checkpoint.number"')
        || ', of which there is no such row'
FROM audit_records AS records
WHERE event_name = 'audit.checkpoint'
    AND NOT EXISTS (SELECT 1 FROM audit_checkpoints WHERE audit_checkpoints.record_id = records.record_id)
UNION ALL
SELECT
    'checkpoint ' || checkpoints.number,
    'the next one names another hash or signature of it'
FROM audit_checkpoints AS checkpoints
JOIN audit_checkpoints AS following ON following.number = checkpoints.number + 1
JOIN audit_records AS records ON records.record_id = following.record_id
WHERE (
    json_extract(body, '$.attributes."auditrace.checkpoint.prev_hash"'),
    json_extract(body, '$.attributes."auditrace.checkpoint.prev_signature"')
) IS NOT (checkpoints.hash, checkpoints.signature)

-- name: anchor_differs
-- The anchor of a stream must be its tip in the last checkpoint that names the stream.
WITH tips AS (
    SELECT
        json_extract(tip.value, '$.stream_id') AS stream_id, json_extract(tip.value, '$.number') AS number,
        json_extract(tip.value, '$.hash') AS hash, json_extract(tip.value, '$.closed') AS closed,
        max(checkpoints.number) AS checkpoint
    FROM audit_checkpoints AS checkpoints
    JOIN audit_records AS records USING (record_id)
    JOIN json_each(records.body, '$.attributes."auditrace.checkpoint.tips"') AS tip
    GROUP BY 1
)
SELECT
    'stream ' || stream_id,
    'its anchor is ' || coalesce('number ' || anchors.number, 'missing') || '; the last tip that a checkpoint names is '
        || coalesce('number ' || tips.number || ' in checkpoint ' || tips.checkpoint, 'none')
FROM audit_streams
LEFT JOIN tips USING (stream_id)
LEFT JOIN audit_anchors AS anchors USING (stream_id)
WHERE (tips.number, tips.hash, tips.closed, tips.checkpoint)
    IS NOT (anchors.number, anchors.hash, anchors.closed, anchors.checkpoint)

-- Checks in Python, because they need a hash or the ledger secret -----------------------------------------------------

-- name: integrity_check
PRAGMA integrity_check

-- name: foreign_key_check
PRAGMA foreign_key_check

-- name: schema
SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL

-- name: columns_of_records
SELECT
    body, event_name, trace_id, span_id, timestamp_ns, observed_ns, record_id, stream_id, number, tenant_id, actor_id,
    action, outcome, result, target_type, target_id, target_version, job_id, request_id
FROM audit_records

-- name: last_documents
SELECT jobs.job_id, jobs.document, job_versions.document_sha256 FROM jobs JOIN job_versions USING (job_id, version)

-- name: contents
SELECT 'job ' || job_id || ' input ' || name, size, sha256, payload FROM job_inputs
UNION ALL
SELECT 'job ' || job_id || ' run ' || run || ' artifact ' || name, size, sha256, payload FROM job_artifacts

-- name: tips
SELECT stream_id, number, hash, mac FROM audit_streams

-- name: anchors
SELECT stream_id, number, hash, closed, checkpoint, mac FROM audit_anchors

-- name: checkpoints
SELECT number, record_id, hash, signature, fingerprint, streams, records, observed_ns, mac FROM audit_checkpoints

-- name: configurations
SELECT
    configurations.number, configurations.source, configurations.host, configurations.document, configurations.delivers, configurations.record_id, configurations.before, configurations.mac,
    json_extract(body, '$.attributes."auditrace.changes".configuration.to')
FROM configurations
LEFT JOIN audit_records ON audit_records.record_id = configurations.record_id AND event_name = 'service.configure'

-- name: configured
-- The records of services that no configuration names.
SELECT audit_records.record_id FROM audit_records
WHERE event_name = 'service.configure' AND target_type = 'service'
    AND NOT EXISTS (SELECT 1 FROM configurations WHERE configurations.record_id = audit_records.record_id)
