-- The sum of all migrations, to read; written by `python -m tests.checks --write`.

CREATE TABLE audit_streams (
    stream_id   TEXT PRIMARY KEY,
    epoch       INTEGER NOT NULL,
    owner       TEXT NOT NULL,
    opened_ns   INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    hash        TEXT NOT NULL,
    record_id   TEXT NOT NULL,
    observed_ns INTEGER NOT NULL,
    mac         TEXT NOT NULL,
    closed      INTEGER NOT NULL DEFAULT 0 CHECK (closed IN (0, 1))
, alive_until_ns INTEGER NOT NULL DEFAULT 0) STRICT;

CREATE TRIGGER audit_streams_move_forward BEFORE UPDATE ON audit_streams
WHEN NEW.number < OLD.number OR NEW.closed < OLD.closed OR NEW.stream_id <> OLD.stream_id
BEGIN
    SELECT RAISE(ABORT, 'a stream only moves forward');
END;

CREATE TRIGGER audit_streams_stay BEFORE DELETE ON audit_streams
BEGIN
    SELECT RAISE(ABORT, 'streams are never deleted');
END;

CREATE TRIGGER audit_streams_are_not_replaced BEFORE INSERT ON audit_streams
WHEN EXISTS (SELECT 1 FROM audit_streams WHERE stream_id = NEW.stream_id)
BEGIN
    SELECT RAISE(ABORT, 'a stream is opened once');
END;

CREATE TABLE audit_envelopes (
    envelope_id INTEGER PRIMARY KEY,
    resource    BLOB NOT NULL,
    scope       BLOB NOT NULL,
    UNIQUE (resource, scope)
) STRICT;

CREATE TRIGGER audit_envelopes_are_not_changed BEFORE UPDATE ON audit_envelopes
BEGIN
    SELECT RAISE(ABORT, 'envelopes are append-only');
END;

CREATE TRIGGER audit_envelopes_are_not_deleted BEFORE DELETE ON audit_envelopes
BEGIN
    SELECT RAISE(ABORT, 'envelopes are append-only');
END;

CREATE TRIGGER audit_envelopes_are_not_replaced BEFORE INSERT ON audit_envelopes
WHEN EXISTS (
    SELECT 1 FROM audit_envelopes
    WHERE envelope_id = NEW.envelope_id OR (resource = NEW.resource AND scope = NEW.scope)
)
BEGIN
    SELECT RAISE(ABORT, 'envelopes are append-only');
END;

CREATE TABLE audit_records (
    -- The order of commits: SQLite has one writer, so a later commit never has a smaller position.
    position       INTEGER PRIMARY KEY AUTOINCREMENT,
    record_id      TEXT NOT NULL UNIQUE,
    stream_id      TEXT NOT NULL REFERENCES audit_streams (stream_id) DEFERRABLE INITIALLY DEFERRED,
    number         INTEGER NOT NULL,
    hash           TEXT NOT NULL,
    event_name     TEXT NOT NULL,
    timestamp_ns   INTEGER NOT NULL,
    observed_ns    INTEGER NOT NULL,
    tenant_id      TEXT NOT NULL,
    actor_id       TEXT NOT NULL,
    action         TEXT NOT NULL,
    outcome        TEXT NOT NULL,
    result         TEXT NOT NULL,
    target_type    TEXT NOT NULL,
    target_id      TEXT NOT NULL,
    target_version INTEGER,
    -- Set with target_version on records of jobs, so that the reference below applies to them alone.
    versioned_job  TEXT,
    job_id         TEXT,
    request_id     TEXT,
    trace_id       TEXT NOT NULL,
    span_id        TEXT NOT NULL,
    body           TEXT NOT NULL,
    otlp           BLOB NOT NULL,
    envelope_id    INTEGER NOT NULL REFERENCES audit_envelopes (envelope_id),
    UNIQUE (stream_id, number),
    UNIQUE (record_id, versioned_job, target_version),
    -- What the columns claim is what the body says.
    CHECK (record_id = json_extract(body, '$.attributes."audit.record.id"')),
    CHECK (number = json_extract(body, '$.attributes."audit.sequence.number"')),
    CHECK (target_version IS json_extract(body, '$.attributes."auditrace.target.version"')),
    CHECK (versioned_job IS CASE
        WHEN target_version IS NOT NULL AND target_type = 'job' THEN json_extract(body, '$.attributes."audit.target.id"') END),
    -- A record that states a job version describes a change that did happen.
    FOREIGN KEY (versioned_job, target_version, record_id)
        REFERENCES job_versions (job_id, version, record_id) DEFERRABLE INITIALLY DEFERRED
) STRICT;

CREATE TABLE sqlite_sequence(name,seq);

CREATE TRIGGER audit_records_are_not_changed BEFORE UPDATE ON audit_records
BEGIN
    SELECT RAISE(ABORT, 'audit records are append-only');
END;

CREATE TRIGGER audit_records_are_not_deleted BEFORE DELETE ON audit_records
BEGIN
    SELECT RAISE(ABORT, 'audit records are append-only');
END;

CREATE TRIGGER audit_records_are_not_replaced BEFORE INSERT ON audit_records
WHEN EXISTS (
    SELECT 1 FROM audit_records
    WHERE record_id = NEW.record_id OR position = NEW.position
        OR (stream_id = NEW.stream_id AND number = NEW.number)
)
BEGIN
    SELECT RAISE(ABORT, 'audit records are append-only');
END;

CREATE INDEX audit_records_by_tenant ON audit_records (tenant_id, position);

CREATE INDEX audit_records_by_observed ON audit_records (observed_ns);

CREATE INDEX audit_records_by_trace ON audit_records (trace_id, position);

CREATE INDEX audit_records_by_job ON audit_records (job_id, position) WHERE job_id IS NOT NULL;

CREATE INDEX audit_records_by_actor ON audit_records (actor_id, position);

CREATE INDEX audit_records_by_event ON audit_records (event_name, position);

CREATE INDEX audit_records_by_target ON audit_records (target_id, position);

CREATE INDEX audit_records_by_request ON audit_records (request_id, position) WHERE request_id IS NOT NULL;

CREATE TABLE delivery_cursors (
    stream_id TEXT PRIMARY KEY REFERENCES audit_streams (stream_id),
    number    INTEGER NOT NULL,
    owner     TEXT NOT NULL DEFAULT '',
    epoch     INTEGER NOT NULL DEFAULT 0,
    until_ns  INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TRIGGER delivery_cursors_move_forward BEFORE UPDATE ON delivery_cursors
WHEN NEW.stream_id <> OLD.stream_id OR NEW.number < OLD.number OR NEW.epoch < OLD.epoch
    OR (NEW.owner <> OLD.owner AND NEW.epoch = OLD.epoch)
BEGIN
    SELECT RAISE(ABORT, 'a cursor only moves forward');
END;

CREATE TRIGGER delivery_cursors_stay_within_the_stream BEFORE UPDATE OF number ON delivery_cursors
WHEN NEW.number > (SELECT number FROM audit_streams WHERE stream_id = NEW.stream_id)
BEGIN
    SELECT RAISE(ABORT, 'a cursor never passes the end of its stream');
END;

CREATE TRIGGER delivery_cursors_stay BEFORE DELETE ON delivery_cursors
BEGIN
    SELECT RAISE(ABORT, 'cursors are never deleted');
END;

CREATE TABLE parked_records (
    stream_id TEXT NOT NULL,
    number    INTEGER NOT NULL,
    reason    TEXT NOT NULL,
    parked_ns INTEGER NOT NULL,
    PRIMARY KEY (stream_id, number),
    FOREIGN KEY (stream_id, number) REFERENCES audit_records (stream_id, number)
) STRICT;

CREATE TABLE leases (
    name     TEXT PRIMARY KEY,
    owner    TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    until_ns INTEGER NOT NULL
) STRICT;

CREATE TABLE jobs (
    job_id        TEXT PRIMARY KEY,
    tenant_id     TEXT NOT NULL,
    template      TEXT NOT NULL,
    status        TEXT NOT NULL,
    version       INTEGER NOT NULL,
    created_by    TEXT NOT NULL,
    created_ns    INTEGER NOT NULL,
    not_before_ns INTEGER NOT NULL,
    -- The whole job as JSON (service/jobs/model.py); the columns beside it are for queries and constraints.
    document      TEXT NOT NULL,
    CHECK (job_id = json_extract(document, '$.job_id')),
    CHECK (status = json_extract(document, '$.status')),
    CHECK (version = json_extract(document, '$.version')),
    FOREIGN KEY (job_id, version, status) REFERENCES job_versions (job_id, version, status)
        DEFERRABLE INITIALLY DEFERRED
) STRICT;

CREATE TRIGGER jobs_begin_once BEFORE INSERT ON jobs
WHEN NEW.version <> 1 OR EXISTS (SELECT 1 FROM jobs WHERE job_id = NEW.job_id)
BEGIN
    SELECT RAISE(ABORT, 'a job begins once, at version 1');
END;

CREATE TRIGGER jobs_change_by_versions BEFORE UPDATE ON jobs
WHEN NEW.version <> OLD.version + 1 OR NEW.job_id <> OLD.job_id
    OR NOT EXISTS (SELECT 1 FROM job_versions WHERE job_id = OLD.job_id AND version = OLD.version)
BEGIN
    SELECT RAISE(ABORT, 'a job changes by one version at a time');
END;

CREATE TRIGGER jobs_stay BEFORE DELETE ON jobs
BEGIN
    SELECT RAISE(ABORT, 'jobs are never deleted');
END;

CREATE TRIGGER jobs_are_not_replaced BEFORE INSERT ON jobs
WHEN EXISTS (SELECT 1 FROM jobs WHERE job_id = NEW.job_id)
BEGIN
    SELECT RAISE(ABORT, 'a job is created once');
END;

CREATE INDEX jobs_by_tenant ON jobs (tenant_id, created_ns, job_id);

CREATE INDEX jobs_by_status ON jobs (tenant_id, status, created_ns, job_id);

CREATE INDEX jobs_queued ON jobs (tenant_id, not_before_ns) WHERE status = 'queued';

CREATE TABLE job_versions (
    job_id          TEXT NOT NULL REFERENCES jobs (job_id) DEFERRABLE INITIALLY DEFERRED,
    version         INTEGER NOT NULL CHECK (version >= 1),
    status          TEXT NOT NULL,
    record_id       TEXT NOT NULL UNIQUE,
    -- Of the job's document at that version, so that `auditrace doctor` notices a document changed behind its back.
    document_sha256 TEXT NOT NULL,
    PRIMARY KEY (job_id, version),
    UNIQUE (job_id, version, status),
    UNIQUE (job_id, version, record_id),
    -- The record of this version states this version.
    FOREIGN KEY (record_id, job_id, version)
        REFERENCES audit_records (record_id, versioned_job, target_version) DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

CREATE TRIGGER job_versions_follow_their_job BEFORE INSERT ON job_versions
WHEN NOT EXISTS (
    SELECT 1 FROM jobs WHERE job_id = NEW.job_id AND version = NEW.version AND status = NEW.status
) OR EXISTS (
    SELECT 1 FROM job_versions WHERE (job_id = NEW.job_id AND version = NEW.version) OR record_id = NEW.record_id
)
BEGIN
    SELECT RAISE(ABORT, 'the history of a job follows the job');
END;

CREATE TRIGGER job_versions_are_not_changed BEFORE UPDATE ON job_versions
BEGIN
    SELECT RAISE(ABORT, 'the history of a job is append-only');
END;

CREATE TRIGGER job_versions_are_not_deleted BEFORE DELETE ON job_versions
BEGIN
    SELECT RAISE(ABORT, 'the history of a job is append-only');
END;

CREATE TRIGGER job_versions_are_not_replaced BEFORE INSERT ON job_versions
WHEN EXISTS (
    SELECT 1 FROM job_versions
    WHERE (job_id = NEW.job_id AND version = NEW.version) OR record_id = NEW.record_id
)
BEGIN
    SELECT RAISE(ABORT, 'the history of a job is append-only');
END;

CREATE TABLE job_runs (
    job_id         TEXT NOT NULL REFERENCES jobs (job_id),
    number         INTEGER NOT NULL,
    status         TEXT NOT NULL,
    worker_id      TEXT NOT NULL,
    document       TEXT NOT NULL,
    -- The lease: set while the run is in progress, and only then.
    lease_until_ns INTEGER,
    PRIMARY KEY (job_id, number),
    CHECK ((status = 'running') = (lease_until_ns IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX job_runs_leased ON job_runs (lease_until_ns) WHERE lease_until_ns IS NOT NULL;

CREATE TABLE tenant_turns (
    tenant_id TEXT PRIMARY KEY,
    last_ns   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE job_inputs (
    job_id  TEXT NOT NULL REFERENCES jobs (job_id),
    name    TEXT NOT NULL,
    size    INTEGER NOT NULL,
    sha256  TEXT NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (job_id, name)
) STRICT;

CREATE TABLE job_artifacts (
    job_id  TEXT NOT NULL,
    run     INTEGER NOT NULL,
    name    TEXT NOT NULL,
    size    INTEGER NOT NULL,
    sha256  TEXT NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (job_id, run, name),
    FOREIGN KEY (job_id, run) REFERENCES job_runs (job_id, number)
) STRICT;

CREATE TABLE job_secrets (
    job_id     TEXT NOT NULL REFERENCES jobs (job_id),
    name       TEXT NOT NULL,
    ciphertext BLOB NOT NULL,
    PRIMARY KEY (job_id, name)
) STRICT;

CREATE TABLE api_keys (
    key_id        TEXT PRIMARY KEY,
    tenant_id     TEXT NOT NULL,
    name          TEXT NOT NULL,
    roles         TEXT NOT NULL,
    secret_sha256 TEXT NOT NULL,
    created_ns    INTEGER NOT NULL,
    revoked_ns    INTEGER, expires_ns INTEGER, person TEXT,
    -- A name is an actor id: never given to a second key.
    UNIQUE (tenant_id, name)
) STRICT;

CREATE TRIGGER api_keys_stay BEFORE DELETE ON api_keys
BEGIN
    SELECT RAISE(ABORT, 'keys are revoked, never deleted');
END;

CREATE TRIGGER api_keys_are_revoked_once BEFORE UPDATE ON api_keys
WHEN OLD.revoked_ns IS NOT NULL OR NEW.revoked_ns IS NULL
    OR (NEW.key_id, NEW.tenant_id, NEW.name, NEW.roles, NEW.secret_sha256, NEW.created_ns)
        IS NOT (OLD.key_id, OLD.tenant_id, OLD.name, OLD.roles, OLD.secret_sha256, OLD.created_ns)
BEGIN
    SELECT RAISE(ABORT, 'a key is revoked once, and not changed otherwise');
END;

CREATE TRIGGER api_keys_are_not_replaced BEFORE INSERT ON api_keys
WHEN EXISTS (
    SELECT 1 FROM api_keys WHERE key_id = NEW.key_id OR (tenant_id = NEW.tenant_id AND name = NEW.name)
)
BEGIN
    SELECT RAISE(ABORT, 'a key is made once, and its name stays taken');
END;

CREATE TABLE idempotency_keys (
    tenant_id   TEXT NOT NULL,
    actor_id    TEXT NOT NULL,
    route       TEXT NOT NULL,
    key_sha256  TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    job_id      TEXT NOT NULL,
    expires_ns  INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, actor_id, route, key_sha256)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_ns);

CREATE TABLE signing_keys (
    number           INTEGER PRIMARY KEY CHECK (number >= 1),
    fingerprint      TEXT NOT NULL UNIQUE,
    public_key       TEXT NOT NULL UNIQUE,
    first_checkpoint INTEGER NOT NULL CHECK (first_checkpoint >= 1),
    registered_ns    INTEGER NOT NULL,
    -- The record of the rotation that brought it, signed by the key before; the first key has none.
    rotation         TEXT REFERENCES audit_records (record_id) DEFERRABLE INITIALLY DEFERRED,
    -- Under the deployment's secret: whoever can only write the database cannot make it name a key of theirs.
    mac              TEXT NOT NULL,
    CHECK ((number = 1) = (rotation IS NULL))
) STRICT;

CREATE TRIGGER signing_keys_follow_one_another BEFORE INSERT ON signing_keys
WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM signing_keys)
    OR EXISTS (SELECT 1 FROM signing_keys WHERE fingerprint = NEW.fingerprint OR public_key = NEW.public_key)
BEGIN
    SELECT RAISE(ABORT, 'a signing key is registered once, behind the one before');
END;

CREATE TRIGGER signing_keys_are_not_changed BEFORE UPDATE ON signing_keys
BEGIN
    SELECT RAISE(ABORT, 'signing keys are append-only');
END;

CREATE TRIGGER signing_keys_are_not_deleted BEFORE DELETE ON signing_keys
BEGIN
    SELECT RAISE(ABORT, 'signing keys are append-only');
END;

CREATE TABLE audit_checkpoints (
    number      INTEGER PRIMARY KEY CHECK (number >= 1),
    record_id   TEXT NOT NULL UNIQUE REFERENCES audit_records (record_id),
    hash        TEXT NOT NULL,
    signature   TEXT NOT NULL,
    fingerprint TEXT NOT NULL REFERENCES signing_keys (fingerprint),
    -- Totals of all checkpoints so far, to which the anchors must add up.
    streams     INTEGER NOT NULL,
    records     INTEGER NOT NULL,
    observed_ns INTEGER NOT NULL,
    -- Under the deployment's secret, like that of a tip.
    mac         TEXT NOT NULL
) STRICT;

CREATE TRIGGER audit_checkpoints_run_without_gaps BEFORE INSERT ON audit_checkpoints
WHEN NEW.number <= (SELECT coalesce(max(number), 0) FROM audit_checkpoints)
    -- One that follows on a restore says behind which one it comes.
    OR (SELECT coalesce(max(number), 0) FROM audit_checkpoints) <> coalesce((
        SELECT json_extract(body, '$.attributes."auditrace.checkpoint.prev_number"') FROM audit_records
        WHERE record_id = NEW.record_id
    ), NEW.number - 1)
    OR EXISTS (SELECT 1 FROM audit_checkpoints WHERE record_id = NEW.record_id)
BEGIN
    SELECT RAISE(ABORT, 'checkpoints are numbered without gaps');
END;

CREATE TRIGGER audit_checkpoints_state_their_record BEFORE INSERT ON audit_checkpoints
WHEN NOT EXISTS (
    SELECT 1 FROM audit_records
    WHERE record_id = NEW.record_id AND hash = NEW.hash AND event_name = 'audit.checkpoint'
        AND json_extract(body, '$.attributes."auditrace.checkpoint.number"') = NEW.number
)
BEGIN
    SELECT RAISE(ABORT, 'a checkpoint is what its record says');
END;

CREATE TRIGGER audit_checkpoints_are_not_changed BEFORE UPDATE ON audit_checkpoints
BEGIN
    SELECT RAISE(ABORT, 'checkpoints are append-only');
END;

CREATE TRIGGER audit_checkpoints_are_not_deleted BEFORE DELETE ON audit_checkpoints
BEGIN
    SELECT RAISE(ABORT, 'checkpoints are append-only');
END;

CREATE TABLE audit_anchors (
    stream_id  TEXT PRIMARY KEY REFERENCES audit_streams (stream_id),
    number     INTEGER NOT NULL CHECK (number >= 1),
    hash       TEXT NOT NULL,
    closed     INTEGER NOT NULL CHECK (closed IN (0, 1)),
    checkpoint INTEGER NOT NULL REFERENCES audit_checkpoints (number),
    mac        TEXT NOT NULL
) STRICT;

CREATE TRIGGER audit_anchors_move_forward BEFORE UPDATE ON audit_anchors
WHEN NEW.stream_id <> OLD.stream_id OR NEW.number < OLD.number OR NEW.closed < OLD.closed
    OR NEW.checkpoint <= OLD.checkpoint
BEGIN
    SELECT RAISE(ABORT, 'an anchor only moves forward');
END;

CREATE TRIGGER audit_anchors_stay BEFORE DELETE ON audit_anchors
BEGIN
    SELECT RAISE(ABORT, 'anchors are never deleted');
END;

CREATE TRIGGER audit_anchors_are_not_replaced BEFORE INSERT ON audit_anchors
WHEN EXISTS (SELECT 1 FROM audit_anchors WHERE stream_id = NEW.stream_id)
BEGIN
    SELECT RAISE(ABORT, 'an anchor only moves forward');
END;

CREATE TABLE refused_streams (
    stream_id TEXT PRIMARY KEY,
    reason    TEXT NOT NULL,
    since_ns  INTEGER NOT NULL,
    -- By the stream's own lane, which alone knows what it committed: no checkpoint signs over it, whatever it finds.
    disowned  INTEGER NOT NULL CHECK (disowned IN (0, 1))
) STRICT;

CREATE TABLE schema_additions (
    name TEXT PRIMARY KEY
) STRICT;

CREATE TRIGGER api_keys_keep_their_end BEFORE UPDATE ON api_keys
WHEN NEW.expires_ns IS NOT OLD.expires_ns
BEGIN
    SELECT RAISE(ABORT, 'a key is revoked once, and not changed otherwise');
END;

CREATE TABLE api_key_uses (
    key_id  TEXT PRIMARY KEY REFERENCES api_keys (key_id),
    used_ns INTEGER NOT NULL
) STRICT;

CREATE TRIGGER api_keys_keep_their_person BEFORE UPDATE ON api_keys
WHEN NEW.person IS NOT OLD.person
BEGIN
    SELECT RAISE(ABORT, 'a key is revoked once, and not changed otherwise');
END;

CREATE TABLE configurations (
    number    INTEGER PRIMARY KEY CHECK (number >= 1),
    -- Where it is in force: in the processes of this kind on this host.
    source    TEXT NOT NULL,
    host      TEXT NOT NULL,
    -- Settings and templates as canonical JSON; without secrets.
    document  TEXT NOT NULL,
    -- Whether its processes deliver records.
    delivers  INTEGER NOT NULL CHECK (delivers IN (0, 1)),
    -- The record that states its hash. Configurations that are the same on several hosts have one record.
    record_id TEXT NOT NULL REFERENCES audit_records (record_id) DEFERRABLE INITIALLY DEFERRED,
    -- The configuration with the sink that was in force until then; NULL if the record is offered to no sink.
    before    INTEGER REFERENCES configurations (number),
    -- Under the deployment's secret: whoever can only write the database cannot hide a change from the next start.
    mac       TEXT NOT NULL
) STRICT;

CREATE INDEX configurations_by_place ON configurations (source, host, number);

CREATE TRIGGER configurations_follow_one_another BEFORE INSERT ON configurations
WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM configurations)
BEGIN
    SELECT RAISE(ABORT, 'a configuration is stored once, behind the one before');
END;

CREATE TRIGGER configurations_are_not_changed BEFORE UPDATE ON configurations
BEGIN
    SELECT RAISE(ABORT, 'configurations are append-only');
END;

CREATE TRIGGER configurations_are_not_deleted BEFORE DELETE ON configurations
BEGIN
    SELECT RAISE(ABORT, 'configurations are append-only');
END;

CREATE TABLE configuration_offers (
    number   INTEGER PRIMARY KEY REFERENCES configurations (number),
    answer   TEXT,
    ended_ns INTEGER NOT NULL
) STRICT;

CREATE INDEX audit_records_by_initiator ON audit_records (
    CASE WHEN instr(body, '"auditrace.initiator.id":') > 0 AND json_valid(body)
    THEN json_extract(replace(body, '\u0000', '\ufffd'), '$.attributes."auditrace.initiator.id"') END, position
) WHERE CASE WHEN instr(body, '"auditrace.initiator.id":') > 0 AND json_valid(body)
    THEN json_extract(replace(body, '\u0000', '\ufffd'), '$.attributes."auditrace.initiator.id"') END IS NOT NULL;

CREATE INDEX audit_records_by_result ON audit_records (result, position);

CREATE TABLE webhook_endpoints (
    name             TEXT PRIMARY KEY,
    registered_ns    INTEGER NOT NULL,
    error            TEXT,
    failing_since_ns INTEGER
) STRICT;

CREATE TABLE webhook_cursors (
    endpoint  TEXT NOT NULL REFERENCES webhook_endpoints (name),
    stream_id TEXT NOT NULL REFERENCES audit_streams (stream_id),
    number    INTEGER NOT NULL CHECK (number >= 0),
    PRIMARY KEY (endpoint, stream_id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER webhook_cursors_move_forward BEFORE UPDATE ON webhook_cursors
WHEN NEW.endpoint <> OLD.endpoint OR NEW.stream_id <> OLD.stream_id OR NEW.number < OLD.number
BEGIN
    SELECT RAISE(ABORT, 'a cursor only moves forward');
END;

CREATE TRIGGER webhook_cursors_begin_within_the_stream BEFORE INSERT ON webhook_cursors
WHEN NEW.number > (SELECT number FROM audit_streams WHERE stream_id = NEW.stream_id)
BEGIN
    SELECT RAISE(ABORT, 'a cursor never passes the end of its stream');
END;

CREATE TRIGGER webhook_cursors_stay_within_the_stream BEFORE UPDATE OF number ON webhook_cursors
WHEN NEW.number > (SELECT number FROM audit_streams WHERE stream_id = NEW.stream_id)
BEGIN
    SELECT RAISE(ABORT, 'a cursor never passes the end of its stream');
END;

CREATE TRIGGER webhook_cursors_stay BEFORE DELETE ON webhook_cursors
BEGIN
    SELECT RAISE(ABORT, 'cursors are never deleted');
END;

CREATE TABLE api_key_secrets (
    key_id            TEXT NOT NULL REFERENCES api_keys (key_id),
    number            INTEGER NOT NULL CHECK (number >= 1),
    secret_sha256     TEXT NOT NULL,
    made_ns           INTEGER NOT NULL,
    -- The secret before it, and until when that one is accepted too; NULL with the first one.
    previous_sha256   TEXT,
    previous_until_ns INTEGER,
    -- The record that states this secret.
    record_id         TEXT NOT NULL REFERENCES audit_records (record_id) DEFERRABLE INITIALLY DEFERRED,
    -- Under the deployment's secret, over the whole key: whoever can only write the database can make no key.
    mac               TEXT NOT NULL,
    PRIMARY KEY (key_id, number)
) STRICT;

CREATE TRIGGER api_key_secrets_follow_one_another BEFORE INSERT ON api_key_secrets
WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM api_key_secrets WHERE key_id = NEW.key_id)
BEGIN
    SELECT RAISE(ABORT, 'a secret of a key is stored once, behind the one before');
END;

CREATE TRIGGER api_key_secrets_are_not_changed BEFORE UPDATE ON api_key_secrets
BEGIN
    SELECT RAISE(ABORT, 'secrets of keys are append-only');
END;

CREATE TRIGGER api_key_secrets_are_not_deleted BEFORE DELETE ON api_key_secrets
BEGIN
    SELECT RAISE(ABORT, 'secrets of keys are append-only');
END;

CREATE VIEW present_api_keys AS
SELECT
    api_keys.key_id, name, tenant_id, roles, api_keys.secret_sha256, created_ns, revoked_ns, expires_ns, person,
    number, present.secret_sha256 AS present_sha256, made_ns, previous_sha256, previous_until_ns, record_id, mac
FROM api_keys LEFT JOIN api_key_secrets AS present ON present.key_id = api_keys.key_id
    AND number = (SELECT max(number) FROM api_key_secrets WHERE key_id = api_keys.key_id);

CREATE VIEW key_records AS
SELECT target_id, record_id, event_name, body FROM audit_records
WHERE event_name IN ('key.create', 'key.adopt', 'key.rotate', 'key.revoke') AND result = 'success';

CREATE VIEW api_keys_on_record AS
SELECT present_api_keys.*, records.record_id AS change_id, event_name, body
FROM present_api_keys LEFT JOIN key_records AS records ON target_id = name;

CREATE TABLE tenant_storage (
    tenant_id TEXT PRIMARY KEY,
    bytes     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER tenant_storage_has_records AFTER INSERT ON audit_records
WHEN NEW.actor_id NOT IN ('anonymous', 'auditrace')
BEGIN
    INSERT INTO tenant_storage (tenant_id, bytes)
    VALUES (NEW.tenant_id, length(CAST(NEW.body AS BLOB)) + length(NEW.otlp))
    ON CONFLICT (tenant_id) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER tenant_storage_has_inputs AFTER INSERT ON job_inputs
BEGIN
    INSERT INTO tenant_storage (tenant_id, bytes) SELECT tenant_id, NEW.size FROM jobs WHERE job_id = NEW.job_id
    ON CONFLICT (tenant_id) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER tenant_storage_has_replaced_inputs AFTER UPDATE ON job_inputs
BEGIN
    UPDATE tenant_storage SET bytes = bytes + NEW.size - OLD.size
    WHERE tenant_id = (SELECT tenant_id FROM jobs WHERE job_id = NEW.job_id);
END;

CREATE TRIGGER tenant_storage_has_artifacts AFTER INSERT ON job_artifacts
BEGIN
    INSERT INTO tenant_storage (tenant_id, bytes) SELECT tenant_id, NEW.size FROM jobs WHERE job_id = NEW.job_id
    ON CONFLICT (tenant_id) DO UPDATE SET bytes = bytes + excluded.bytes;
END;
