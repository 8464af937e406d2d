-- The checks of the reconciliation. Each statement has the name of its check, and returns each contradiction with its
-- place and a description.

-- name: version_without_record
SELECT 'job ' || job_id || ' version ' || version, 'its record ' || record_id || ' does not exist'
FROM job_versions AS versions
WHERE NOT EXISTS (SELECT FROM audit_records WHERE audit_records.record_id = versions.record_id)

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
    SELECT FROM job_versions AS versions
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
    SELECT DISTINCT ON (job_id) job_id, status, version FROM job_versions ORDER BY job_id, version DESC
) AS last USING (job_id)
WHERE (last.version, last.status) IS DISTINCT FROM (jobs.version, jobs.status)

-- name: change_differs
-- A record must state the change of status that the job's history has at that version.
SELECT
    'record ' || records.record_id,
    'it states ' || coalesce(stated::text, 'no change of status') || '; job ' || after.job_id || ' went from '
        || coalesce(before.status, 'nothing') || ' to ' || after.status || ' at version ' || after.version
FROM (
    SELECT
        record_id, versioned_job, target_version,
        comparable_json(body) -> 'attributes' -> 'auditrace.changes' -> 'status' AS stated
    FROM audit_records WHERE versioned_job IS NOT NULL
) AS records
JOIN job_versions AS after ON after.job_id = versioned_job AND after.version = target_version
LEFT JOIN job_versions AS before ON before.job_id = after.job_id AND before.version = after.version - 1
WHERE CASE
    WHEN stated IS NULL THEN before.status IS DISTINCT FROM after.status
    ELSE (stated ->> 'from', stated ->> 'to') IS DISTINCT FROM (before.status, after.status)
END

-- name: run_differs
SELECT 'job ' || job_id || ' run ' || number, 'a column beside its document says something else'
FROM (SELECT *, comparable_json(document) AS said FROM job_runs) AS runs
WHERE (said ->> 'job_id', said -> 'number', said ->> 'status', said ->> 'worker_id')
    IS DISTINCT FROM (job_id, to_jsonb(number), status, worker_id)
UNION ALL
SELECT 'job ' || job_id, 'it is at run ' || run || ', and has ' || runs || ' runs'
FROM (
    SELECT
        jobs.job_id, (comparable_json(jobs.document) ->> 'run')::bigint AS run, count(job_runs.number) AS runs,
        coalesce(max(job_runs.number), 0) AS last
    FROM jobs LEFT JOIN job_runs USING (job_id) GROUP BY jobs.job_id
) AS counted
WHERE runs <> run OR last <> run

-- name: input_without_record
-- The last record of an input must state the hash of its bytes.
SELECT 'job ' || job_id || ' input ' || name, 'no record states these bytes as its last'
FROM job_inputs AS inputs
WHERE sha256 IS DISTINCT FROM (
    SELECT stated -> 'sha256' ->> 'to'
    FROM (
        SELECT target_version, comparable_json(body) -> 'attributes' -> 'auditrace.changes' AS stated
        FROM audit_records AS records
        WHERE records.job_id = inputs.job_id AND event_name = 'input.write' AND result = 'success'
    ) AS written
    WHERE stated -> 'name' ->> 'to' = inputs.name
    ORDER BY target_version DESC LIMIT 1
)

-- name: tip_differs
-- The row of a stream must name its last record.
SELECT
    'stream ' || streams.stream_id,
    'its tip is number ' || streams.number || '; its last record is ' || CASE
        WHEN last.number = streams.number THEN 'another one' ELSE coalesce('number ' || last.number, 'missing') END
FROM audit_streams AS streams LEFT JOIN LATERAL (
    SELECT records.number, records.hash, records.record_id, records.observed_ns
    FROM (
        -- This uses the index of keys, whatever the statistics are.
        SELECT observed_ns FROM audit_record_keys AS keys
        WHERE keys.stream_id = streams.stream_id ORDER BY number DESC LIMIT 1
    ) AS newest
    JOIN audit_records AS records
        ON records.stream_id = streams.stream_id AND records.observed_ns = newest.observed_ns
) AS last ON true
WHERE (last.number, last.hash, last.record_id, last.observed_ns)
    IS DISTINCT FROM (streams.number, streams.hash, streams.record_id, streams.observed_ns)

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
    streams.number - cursors.number || ' records should wait for delivery, and ' || coalesce(waiting, 0) || ' do'
FROM audit_streams AS streams JOIN delivery_cursors AS cursors USING (stream_id) LEFT JOIN (
    SELECT stream_id, count(*) AS waiting FROM audit_records JOIN delivery_cursors USING (stream_id)
    WHERE audit_records.number > delivery_cursors.number GROUP BY stream_id
) AS behind USING (stream_id)
WHERE streams.number >= cursors.number AND coalesce(waiting, 0) <> streams.number - cursors.number

-- name: parked
SELECT
    'stream ' || parked_records.stream_id || ' number ' || parked_records.number,
    CASE WHEN parked_records.number <= delivery_cursors.number
        THEN 'record ' || coalesce(record_id, '?') || ' is parked, the sink said: ' || reason
        ELSE 'a record is parked that was not tried yet' END
FROM parked_records
LEFT JOIN delivery_cursors USING (stream_id)
LEFT JOIN audit_record_keys AS keys ON keys.stream_id = parked_records.stream_id AND keys.number = parked_records.number
ORDER BY parked_records.stream_id, parked_records.number

-- name: checkpoint_differs
-- Every checkpoint must have a row and a record that agree.
WITH stated AS (
    SELECT record_id, hash, observed_ns, comparable_json(body) -> 'attributes' AS said
    FROM audit_records WHERE event_name = 'audit.checkpoint'
)
SELECT 'checkpoint ' || checkpoints.number, 'its row is not what its record ' || checkpoints.record_id || ' says'
FROM audit_checkpoints AS checkpoints LEFT JOIN stated USING (record_id)
WHERE (stated.hash, stated.observed_ns) IS DISTINCT FROM (checkpoints.hash, checkpoints.observed_ns)
    OR (
        said -> 'auditrace.checkpoint.number', said -> 'auditrace.checkpoint.streams',
        said -> 'auditrace.checkpoint.records'
    ) IS DISTINCT FROM (
        to_jsonb(checkpoints.number), to_jsonb(checkpoints.streams), to_jsonb(checkpoints.records)
    )
UNION ALL
SELECT
    'record ' || record_id,
    'it is checkpoint ' || coalesce(said ->> 'auditrace.checkpoint.number', '?') || ', of which there is no such row'
FROM stated
WHERE NOT EXISTS (SELECT FROM audit_checkpoints WHERE audit_checkpoints.record_id = stated.record_id)
UNION ALL
SELECT 'checkpoint ' || checkpoints.number, 'the next one names another hash or signature of it'
FROM audit_checkpoints AS checkpoints
JOIN audit_checkpoints AS following ON following.number = checkpoints.number + 1
JOIN stated ON stated.record_id = following.record_id
WHERE (said ->> 'auditrace.checkpoint.prev_hash', said ->> 'auditrace.checkpoint.prev_signature')
    IS DISTINCT FROM (checkpoints.hash, checkpoints.signature)

-- name: anchor_differs
-- The anchor of a stream must be its tip in the last checkpoint that names the stream.
WITH tips AS (
    SELECT DISTINCT ON (tip ->> 'stream_id')
        tip ->> 'stream_id' AS stream_id, (tip ->> 'number')::bigint AS number, tip ->> 'hash' AS hash,
        (tip ->> 'closed')::boolean::integer AS closed, checkpoints.number AS checkpoint
    FROM audit_checkpoints AS checkpoints
    JOIN audit_records AS records ON records.record_id = checkpoints.record_id
    CROSS JOIN LATERAL jsonb_array_elements(
        comparable_json(records.body) -> 'attributes' -> 'auditrace.checkpoint.tips'
    ) AS tip
    ORDER BY tip ->> 'stream_id', checkpoints.number DESC
)
SELECT
    'stream ' || streams.stream_id,
    'its anchor is ' || coalesce('number ' || anchors.number, 'missing') || '; the last tip that a checkpoint names is '
        || coalesce('number ' || tips.number || ' in checkpoint ' || tips.checkpoint, 'none')
FROM audit_streams AS streams
LEFT JOIN tips ON tips.stream_id = streams.stream_id
LEFT JOIN audit_anchors AS anchors ON anchors.stream_id = streams.stream_id
WHERE (tips.number, tips.hash, tips.closed, tips.checkpoint)
    IS DISTINCT FROM (anchors.number, anchors.hash, anchors.closed, anchors.checkpoint)

-- Checks in Python: with more than one statement, a hash, or the ledger secret ----------------------------------------

-- name: keys_of_records
-- The keys that are unique over the whole ledger are in one table, and must agree with the records of all partitions.
SELECT
    'record ' || coalesce(records.record_id, keys.record_id),
    CASE
        WHEN records.record_id IS NULL THEN 'it has a key, and is not there'
        WHEN keys.record_id IS NULL THEN 'it has no key, so that it is not unique'
        ELSE 'its key says something else'
    END
FROM audit_records AS records FULL JOIN audit_record_keys AS keys USING (record_id)
WHERE (
    records.record_id, records.stream_id, records.number, records.observed_ns, records.versioned_job,
    CASE WHEN records.versioned_job IS NOT NULL THEN records.target_version END
) IS DISTINCT FROM (
    keys.record_id, keys.stream_id, keys.number, keys.observed_ns, keys.versioned_job,
    CASE WHEN keys.versioned_job IS NOT NULL THEN keys.target_version END
)

-- name: has_amcheck
-- True only if this role may use it.
SELECT coalesce(bool_or(has_function_privilege(pg_proc.oid, 'EXECUTE')), false) FROM pg_proc
JOIN pg_depend ON objid = pg_proc.oid AND deptype = 'e' JOIN pg_extension ON pg_extension.oid = refobjid
WHERE extname = 'amcheck' AND proname = 'bt_index_check'

-- name: indices
SELECT indexrelid::regclass::text, indexrelid::bigint
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
WHERE relnamespace = current_schema()::regnamespace AND relkind = 'i' AND amname = 'btree' AND indisvalid AND indisready
ORDER BY 1

-- name: check_index
-- Every row of the table must be found by the index, and its pages must be in order.
SELECT bt_index_check(%(index)s::oid::regclass, true)

-- name: references
-- For each foreign key: child, parent, and the statement that finds children without a parent.
SELECT
    conrelid::regclass::text, confrelid::regclass::text,
    format(
        'SELECT concat_ws('' '', %s) FROM %s AS child WHERE %s AND NOT EXISTS (SELECT FROM %s AS parent WHERE %s)',
        child_columns, conrelid::regclass, are_stated, confrelid::regclass, are_the_same
    )
FROM pg_constraint CROSS JOIN LATERAL (
    SELECT
        string_agg(format('child.%I', child.attname), ', ' ORDER BY place) AS child_columns,
        string_agg(format('child.%I IS NOT NULL', child.attname), ' AND ' ORDER BY place) AS are_stated,
        string_agg(format('parent.%I = child.%I', parent.attname, child.attname), ' AND ' ORDER BY place) AS are_the_same
    FROM unnest(conkey, confkey) WITH ORDINALITY AS pairs (child_number, parent_number, place)
    JOIN pg_attribute AS child ON child.attrelid = conrelid AND child.attnum = child_number
    JOIN pg_attribute AS parent ON parent.attrelid = confrelid AND parent.attnum = parent_number
) AS columns
WHERE contype = 'f' AND connamespace = current_schema()::regnamespace
ORDER BY conrelid::regclass::text, conname

-- name: references_of_records
-- References that a trigger checks, because a foreign key would need an index over all records.
SELECT 'audit_records', 'audit_streams', record_id FROM audit_records
WHERE NOT EXISTS (SELECT FROM audit_streams WHERE audit_streams.stream_id = audit_records.stream_id)
UNION ALL
SELECT 'audit_records', 'audit_envelopes', record_id FROM audit_records
WHERE NOT EXISTS (SELECT FROM audit_envelopes WHERE audit_envelopes.envelope_id = audit_records.envelope_id)
UNION ALL
SELECT 'job_versions', 'audit_record_keys', versions.job_id || ' ' || versions.version FROM job_versions AS versions
WHERE NOT EXISTS (
    SELECT FROM audit_record_keys AS keys
    WHERE keys.record_id = versions.record_id
        AND (keys.versioned_job, keys.target_version) = (versions.job_id, versions.version)
)

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
    comparable_json(body) -> 'attributes' -> 'auditrace.changes' -> 'configuration' ->> 'to'
FROM configurations
LEFT JOIN audit_records
    ON audit_records.record_id = configurations.record_id AND event_name = 'service.configure'

-- name: configured
-- The records of services that no configuration names.
SELECT audit_records.record_id FROM audit_records
WHERE event_name = 'service.configure' AND target_type = 'service'
    AND NOT EXISTS (SELECT FROM configurations WHERE configurations.record_id = audit_records.record_id)

-- name: begin_fresh_schema
-- Beside the schema of the ledger; all of it is rolled back.
CREATE SCHEMA auditrace_as_migrated;
SET LOCAL search_path = auditrace_as_migrated

-- name: partition_of_now
SELECT make_record_partitions(ledger_now_ns())

-- name: schema
-- Every object with its definition; objects of different partitions of records have the same names here.
WITH tables AS (
    SELECT
        pg_class.oid, relname, relkind, relpersistence, relrowsecurity, relforcerowsecurity,
        CASE WHEN relispartition THEN 'audit_records_YYYY_MM' ELSE relname::text END AS shown
    FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
), objects AS (
    SELECT
        relname, shown, CASE relkind WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind, shown AS name,
        concat_ws(
            ' ', relkind, relpersistence, relrowsecurity, relforcerowsecurity,
            (
                SELECT string_agg(concat_ws(
                    ' ', attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,
                    pg_get_expr(adbin, adrelid), (SELECT collname FROM pg_collation WHERE pg_collation.oid = attcollation)
                ), ', ' ORDER BY attnum)
                FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
                WHERE attrelid = tables.oid AND attnum > 0 AND NOT attisdropped
            ),
            CASE WHEN relkind = 'v' THEN pg_get_viewdef(tables.oid) END,
            CASE WHEN relkind = 'p' THEN pg_get_partkeydef(tables.oid) END
        ) AS definition
    FROM tables
    UNION ALL
    SELECT
        relname, shown, 'constraint', conname, concat_ws(
            ' ', pg_get_constraintdef(pg_constraint.oid), CASE WHEN convalidated THEN '' ELSE 'not validated' END
        )
    FROM tables JOIN pg_constraint ON conrelid = tables.oid WHERE contype IN ('p', 'u', 'f', 'c', 'x')
    UNION ALL
    SELECT
        relname, shown, 'index', indexrelid::regclass::text,
        concat_ws(' ', pg_get_indexdef(indexrelid), CASE WHEN indisvalid THEN '' ELSE 'not valid' END)
    FROM tables JOIN pg_index ON indrelid = tables.oid
    UNION ALL
    SELECT
        relname, shown, 'trigger', tgname,
        concat_ws(' ', pg_get_triggerdef(pg_trigger.oid), CASE WHEN tgenabled = 'O' THEN '' ELSE 'not enabled' END)
    FROM tables JOIN pg_trigger ON tgrelid = tables.oid WHERE NOT tgisinternal
    UNION ALL
    SELECT relname, shown, 'rule', rulename, pg_get_ruledef(pg_rewrite.oid)
    FROM tables JOIN pg_rewrite ON ev_class = tables.oid WHERE rulename <> '_RETURN'
    UNION ALL
    SELECT
        relname, shown, 'policy', polname,
        concat_ws(' ', polcmd, polpermissive, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
    FROM tables JOIN pg_policy ON polrelid = tables.oid
)
SELECT
    kind, replace(shown, relname, shown), replace(name, relname, shown), relname,
    replace(replace(definition, relname, shown), current_schema() || '.', '')
FROM objects
UNION ALL
SELECT
    'function', '', proname, '',
    concat_ws(' ', pg_get_function_identity_arguments(pg_proc.oid), pg_get_function_result(pg_proc.oid), lanname,
        provolatile, proisstrict, prosecdef,
        -- The value of a function's search_path is left out, because it is the schema in which it was made.
        regexp_replace(array_to_string(proconfig, ' '), 'search_path=.*', 'search_path'), prosrc)
FROM pg_proc JOIN pg_language ON pg_language.oid = prolang
WHERE pronamespace = current_schema()::regnamespace
    AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
