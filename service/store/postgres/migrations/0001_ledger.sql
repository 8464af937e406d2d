-- The ledger. Records are append-only and partitioned by month; what must be unique over all of it stands in one table.

-- The clock of the ledger: nanoseconds since the epoch. All lanes and leases of a deployment go by it.
CREATE FUNCTION ledger_now_ns() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000 $$;

-- A JSON text as jsonb, which has no \u0000: good for comparing members, not for reading texts back.
CREATE FUNCTION comparable_json(document text) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT replace(document, '\u0000', '\ufffd')::jsonb $$;

CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'restrict_violation', MESSAGE = TG_ARGV[0]; END $$;

-- One row a lane, updated with each of its commits: room for that in the row's own page keeps it cheap.
CREATE TABLE audit_streams (
    stream_id      text COLLATE "C" PRIMARY KEY,
    epoch          bigint NOT NULL,
    owner          text NOT NULL,
    -- The database session of the lane, so that who closes the stream can end one that is stuck.
    session        text NOT NULL,
    opened_ns      bigint NOT NULL,
    number         bigint NOT NULL,
    hash           text NOT NULL,
    record_id      text NOT NULL,
    observed_ns    bigint NOT NULL,
    mac            text NOT NULL,
    closed         integer NOT NULL DEFAULT 0 CHECK (closed IN (0, 1)),
    -- Until when the stream's process answers for it; renewed by its lane.
    alive_until_ns bigint NOT NULL
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

CREATE TRIGGER audit_streams_move_forward BEFORE UPDATE ON audit_streams FOR EACH ROW
WHEN (NEW.number < OLD.number OR NEW.closed < OLD.closed OR NEW.stream_id <> OLD.stream_id)
EXECUTE FUNCTION refuse('a stream only moves forward');

CREATE TRIGGER audit_streams_stay BEFORE DELETE ON audit_streams FOR EACH ROW
EXECUTE FUNCTION refuse('streams are never deleted');

CREATE TRIGGER audit_streams_are_not_emptied BEFORE TRUNCATE ON audit_streams
EXECUTE FUNCTION refuse('streams are never deleted');

-- Resources and scopes of OTLP are the same for all records of a process: kept beside them, as serialized messages.
CREATE TABLE audit_envelopes (
    envelope_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    resource    bytea NOT NULL,
    scope       bytea NOT NULL
);

-- By their hashes, because an index cannot hold long values. Not unique: of lanes that begin at the same time none
-- waits for another's transaction, and one row more does no harm.
CREATE INDEX audit_envelopes_by_hash ON audit_envelopes (sha256(resource), sha256(scope));

CREATE TABLE audit_records (
    record_id      text COLLATE "C" NOT NULL,
    stream_id      text COLLATE "C" NOT NULL,
    number         bigint NOT NULL,
    hash           text NOT NULL,
    event_name     text COLLATE "C" NOT NULL,
    timestamp_ns   bigint NOT NULL,
    -- Increases with the number in each stream, so that (observed_ns, stream_id) orders and names all records.
    observed_ns    bigint NOT NULL,
    tenant_id      text COLLATE "C" NOT NULL,
    actor_id       text COLLATE "C" NOT NULL,
    action         text COLLATE "C" NOT NULL,
    outcome        text COLLATE "C" NOT NULL,
    result         text COLLATE "C" NOT NULL,
    target_type    text COLLATE "C" NOT NULL,
    target_id      text COLLATE "C" NOT NULL,
    target_version bigint,
    -- Set with target_version on records of jobs, so that the reference in audit_record_keys applies to them alone.
    versioned_job  text COLLATE "C",
    job_id         text COLLATE "C",
    request_id     text COLLATE "C",
    trace_id       text COLLATE "C" NOT NULL,
    span_id        text COLLATE "C" NOT NULL,
    body           text NOT NULL,
    otlp           bytea NOT NULL,
    envelope_id    bigint NOT NULL,
    PRIMARY KEY (stream_id, observed_ns)
) PARTITION BY RANGE (observed_ns);

CREATE TRIGGER audit_records_are_not_changed BEFORE UPDATE OR DELETE ON audit_records FOR EACH ROW
EXECUTE FUNCTION refuse('audit records are append-only');

CREATE TRIGGER audit_records_are_not_emptied BEFORE TRUNCATE ON audit_records
EXECUTE FUNCTION refuse('audit records are append-only');

-- Listings. What few records have in common leads by itself; what many have is looked for within a tenant.
CREATE INDEX audit_records_by_time ON audit_records (observed_ns, stream_id);
CREATE INDEX audit_records_by_tenant ON audit_records (tenant_id, observed_ns);
CREATE INDEX audit_records_by_actor ON audit_records (tenant_id, actor_id, observed_ns);
CREATE INDEX audit_records_by_action ON audit_records (tenant_id, action, observed_ns);
CREATE INDEX audit_records_by_event ON audit_records (tenant_id, event_name, observed_ns);
CREATE INDEX audit_records_by_outcome ON audit_records (tenant_id, outcome, observed_ns);
CREATE INDEX audit_records_by_result ON audit_records (tenant_id, result, observed_ns);
CREATE INDEX audit_records_by_target_type ON audit_records (tenant_id, target_type, observed_ns);
CREATE INDEX audit_records_by_target ON audit_records (tenant_id, target_id, observed_ns);
CREATE INDEX audit_records_by_stream ON audit_records (tenant_id, stream_id, observed_ns);
CREATE INDEX audit_records_by_trace ON audit_records (trace_id, observed_ns);
CREATE INDEX audit_records_by_span ON audit_records (span_id, observed_ns);
CREATE INDEX audit_records_by_job ON audit_records (job_id, observed_ns) WHERE job_id IS NOT NULL;
CREATE INDEX audit_records_by_request ON audit_records (request_id, observed_ns) WHERE request_id IS NOT NULL;

-- What is unique over the whole ledger, however the records are partitioned; it stays when old partitions go.
CREATE TABLE audit_record_keys (
    record_id      text COLLATE "C" PRIMARY KEY,
    stream_id      text COLLATE "C" NOT NULL,
    number         bigint NOT NULL CHECK (number >= 1),
    observed_ns    bigint NOT NULL,
    versioned_job  text COLLATE "C",
    target_version bigint,
    UNIQUE (stream_id, number)
);

CREATE TRIGGER audit_record_keys_come_with_records BEFORE INSERT ON audit_record_keys FOR EACH ROW
WHEN (pg_trigger_depth() = 0)
EXECUTE FUNCTION refuse('the key of a record comes with the record');

CREATE TRIGGER audit_record_keys_are_not_changed BEFORE UPDATE OR DELETE ON audit_record_keys FOR EACH ROW
EXECUTE FUNCTION refuse('audit records are append-only');

CREATE TRIGGER audit_record_keys_are_not_emptied BEFORE TRUNCATE ON audit_record_keys
EXECUTE FUNCTION refuse('audit records are append-only');

-- What the columns claim is what the body says, and no record is without its key.
CREATE FUNCTION register_record() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    said jsonb := comparable_json(NEW.body) -> 'attributes';
    version bigint := (said ->> 'auditrace.target.version')::bigint;
BEGIN
    IF NOT said @> jsonb_build_object(
        'audit.record.id', NEW.record_id,
        'audit.sequence.stream_id', NEW.stream_id,
        'audit.sequence.number', NEW.number
    ) OR NEW.hash IS DISTINCT FROM encode(sha256(convert_to(NEW.body, 'UTF8')), 'hex')
        OR NEW.target_version IS DISTINCT FROM version
        OR NEW.versioned_job IS DISTINCT FROM
            (CASE WHEN version IS NOT NULL AND NEW.target_type = 'job' THEN said ->> 'audit.target.id' END)
    THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = 'a record is what its body says';
    END IF;
    IF NOT EXISTS (SELECT FROM audit_streams WHERE stream_id = NEW.stream_id)
        OR NOT EXISTS (SELECT FROM audit_envelopes WHERE envelope_id = NEW.envelope_id)
    THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation', MESSAGE = 'a record has a stream and an envelope';
    END IF;
    INSERT INTO audit_record_keys (record_id, stream_id, number, observed_ns, versioned_job, target_version)
    VALUES (NEW.record_id, NEW.stream_id, NEW.number, NEW.observed_ns, NEW.versioned_job, NEW.target_version);
    RETURN NULL;
END $$;

CREATE TRIGGER audit_records_are_registered AFTER INSERT ON audit_records FOR EACH ROW
EXECUTE FUNCTION register_record();

CREATE TRIGGER audit_envelopes_stay BEFORE UPDATE OR DELETE ON audit_envelopes FOR EACH ROW
EXECUTE FUNCTION refuse('envelopes are append-only');

CREATE TRIGGER audit_envelopes_are_not_emptied BEFORE TRUNCATE ON audit_envelopes
EXECUTE FUNCTION refuse('envelopes are append-only');

CREATE VIEW record_partitions AS
SELECT relname::text AS name FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = 'audit_records'::regclass;

-- Makes the partition of this moment's month and of the two months behind it; returns where the last one ends.
-- Runs with the rights of who migrates, so that a service needs no right to make tables.
CREATE FUNCTION make_record_partitions(moment_ns bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    month timestamp := date_trunc('month', to_timestamp(moment_ns / 1000000000) AT TIME ZONE 'UTC');
    from_ns bigint;
    until_ns bigint;
    partition text;
BEGIN
    FOR ahead IN 0..2 LOOP
        from_ns := extract(epoch FROM month)::bigint * 1000000000;
        until_ns := extract(epoch FROM month + interval '1 month')::bigint * 1000000000;
        partition := 'audit_records_' || to_char(month, 'YYYY_MM');
        IF NOT EXISTS (SELECT FROM record_partitions WHERE name = partition) THEN
            PERFORM pg_advisory_xact_lock(hashtext('make_record_partitions'));
            IF NOT EXISTS (SELECT FROM record_partitions WHERE name = partition) THEN
                EXECUTE format('CREATE TABLE %I (LIKE audit_records INCLUDING ALL)', partition);
                EXECUTE format('CREATE TRIGGER audit_records_are_not_emptied BEFORE TRUNCATE ON %I '
                    'EXECUTE FUNCTION refuse(''audit records are append-only'')', partition);
                -- Attached and not made as a partition, which would lock out all writers of the table.
                EXECUTE format('ALTER TABLE audit_records ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                    partition, from_ns, until_ns);
            END IF;
        END IF;
        month := month + interval '1 month';
    END LOOP;
    RETURN until_ns;
END $$;

-- Delivery: a cursor a stream; what lies at or before it was acknowledged in full, or is parked.
-- Owner, epoch and until_ns are the lease of the relay that works on the stream.
CREATE TABLE delivery_cursors (
    stream_id text COLLATE "C" PRIMARY KEY REFERENCES audit_streams (stream_id),
    number    bigint NOT NULL,
    owner     text NOT NULL DEFAULT '',
    epoch     bigint NOT NULL DEFAULT 0,
    until_ns  bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

CREATE TRIGGER delivery_cursors_move_forward BEFORE UPDATE ON delivery_cursors FOR EACH ROW
WHEN (NEW.stream_id <> OLD.stream_id OR NEW.number < OLD.number OR NEW.epoch < OLD.epoch
    OR (NEW.owner <> OLD.owner AND NEW.epoch = OLD.epoch))
EXECUTE FUNCTION refuse('a cursor only moves forward');

CREATE FUNCTION keep_cursor_within_stream() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.number > (SELECT number FROM audit_streams WHERE stream_id = NEW.stream_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'restrict_violation', MESSAGE = 'a cursor never passes the end of its stream';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER delivery_cursors_stay_within_the_stream BEFORE UPDATE OF number ON delivery_cursors FOR EACH ROW
EXECUTE FUNCTION keep_cursor_within_stream();

CREATE TRIGGER delivery_cursors_stay BEFORE DELETE ON delivery_cursors FOR EACH ROW
EXECUTE FUNCTION refuse('cursors are never deleted');

CREATE TRIGGER delivery_cursors_are_not_emptied BEFORE TRUNCATE ON delivery_cursors
EXECUTE FUNCTION refuse('cursors are never deleted');

CREATE TABLE parked_records (
    stream_id text COLLATE "C" NOT NULL,
    number    bigint NOT NULL,
    reason    text NOT NULL,
    parked_ns bigint NOT NULL,
    PRIMARY KEY (stream_id, number),
    FOREIGN KEY (stream_id, number) REFERENCES audit_record_keys (stream_id, number)
);

-- Leases by name; the epoch grows with every new owner and fences the writes of the one before.
CREATE TABLE leases (
    name     text COLLATE "C" PRIMARY KEY,
    owner    text NOT NULL,
    epoch    bigint NOT NULL,
    until_ns bigint NOT NULL
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
