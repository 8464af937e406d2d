-- Checkpoints: what was signed over, and which key signs.

-- The last one signs. Append-only: what a rotation retires is the key before the one that it brings.
CREATE TABLE signing_keys (
    number           bigint PRIMARY KEY CHECK (number >= 1),
    fingerprint      text COLLATE "C" NOT NULL UNIQUE,
    public_key       text COLLATE "C" NOT NULL UNIQUE,
    first_checkpoint bigint NOT NULL CHECK (first_checkpoint >= 1),
    registered_ns    bigint NOT NULL,
    -- The record of the rotation that brought it, signed by the key before; the first key has none.
    rotation         text COLLATE "C" REFERENCES audit_record_keys (record_id) DEFERRABLE INITIALLY DEFERRED,
    -- Under the deployment's secret: whoever can only write the database cannot make it name a key of theirs.
    mac              text NOT NULL,
    CHECK ((number = 1) = (rotation IS NULL))
);

CREATE FUNCTION check_signing_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM signing_keys) THEN
        RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
            MESSAGE = 'a signing key is registered once, behind the one before';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER signing_keys_follow_one_another BEFORE INSERT ON signing_keys FOR EACH ROW
EXECUTE FUNCTION check_signing_key();

CREATE TRIGGER signing_keys_are_not_changed BEFORE UPDATE OR DELETE ON signing_keys FOR EACH ROW
EXECUTE FUNCTION refuse('signing keys are append-only');

CREATE TRIGGER signing_keys_are_not_emptied BEFORE TRUNCATE ON signing_keys
EXECUTE FUNCTION refuse('signing keys are append-only');

CREATE TABLE audit_checkpoints (
    number      bigint PRIMARY KEY CHECK (number >= 1),
    record_id   text COLLATE "C" NOT NULL UNIQUE REFERENCES audit_record_keys (record_id),
    hash        text NOT NULL,
    signature   text NOT NULL,
    fingerprint text COLLATE "C" NOT NULL REFERENCES signing_keys (fingerprint),
    -- Totals of all checkpoints so far, to which the anchors must add up.
    streams     bigint NOT NULL,
    records     bigint NOT NULL,
    observed_ns bigint NOT NULL,
    -- Under the deployment's secret, like that of a tip.
    mac         text NOT NULL
);

CREATE FUNCTION check_checkpoint() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last bigint;
    said jsonb;
BEGIN
    SELECT coalesce(max(number), 0) INTO last FROM audit_checkpoints;
    SELECT comparable_json(body) -> 'attributes' INTO said FROM audit_records
    WHERE observed_ns = NEW.observed_ns AND record_id = NEW.record_id AND hash = NEW.hash
        AND event_name = 'audit.checkpoint';
    -- One that follows on a restore says behind which one it comes.
    IF NEW.number <= last
        OR last <> coalesce((said ->> 'auditrace.checkpoint.prev_number')::bigint, NEW.number - 1)
    THEN
        RAISE EXCEPTION USING ERRCODE = 'restrict_violation', MESSAGE = 'checkpoints are numbered without gaps';
    END IF;
    IF said -> 'auditrace.checkpoint.number' IS DISTINCT FROM to_jsonb(NEW.number) THEN
        RAISE EXCEPTION USING ERRCODE = 'restrict_violation', MESSAGE = 'a checkpoint is what its record says';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER audit_checkpoints_state_their_record BEFORE INSERT ON audit_checkpoints FOR EACH ROW
EXECUTE FUNCTION check_checkpoint();

CREATE TRIGGER audit_checkpoints_are_not_changed BEFORE UPDATE OR DELETE ON audit_checkpoints FOR EACH ROW
EXECUTE FUNCTION refuse('checkpoints are append-only');

CREATE TRIGGER audit_checkpoints_are_not_emptied BEFORE TRUNCATE ON audit_checkpoints
EXECUTE FUNCTION refuse('checkpoints are append-only');

-- The last tip of each stream that a checkpoint named: the next one goes on behind it.
CREATE TABLE audit_anchors (
    stream_id  text COLLATE "C" PRIMARY KEY REFERENCES audit_streams (stream_id),
    number     bigint NOT NULL CHECK (number >= 1),
    hash       text NOT NULL,
    closed     integer NOT NULL CHECK (closed IN (0, 1)),
    checkpoint bigint NOT NULL REFERENCES audit_checkpoints (number),
    mac        text NOT NULL
);

CREATE TRIGGER audit_anchors_move_forward BEFORE UPDATE ON audit_anchors FOR EACH ROW
WHEN (NEW.stream_id <> OLD.stream_id OR NEW.number < OLD.number OR NEW.closed < OLD.closed
    OR NEW.checkpoint <= OLD.checkpoint)
EXECUTE FUNCTION refuse('an anchor only moves forward');

CREATE TRIGGER audit_anchors_stay BEFORE DELETE ON audit_anchors FOR EACH ROW
EXECUTE FUNCTION refuse('anchors are never deleted');

CREATE TRIGGER audit_anchors_are_not_emptied BEFORE TRUNCATE ON audit_anchors
EXECUTE FUNCTION refuse('anchors are never deleted');

-- Streams that checkpoints do not sign over, for readiness and doctor.
CREATE TABLE refused_streams (
    stream_id text COLLATE "C" PRIMARY KEY,
    reason    text NOT NULL,
    since_ns  bigint NOT NULL,
    -- By the stream's own lane, which alone knows what it committed: no checkpoint signs over it, whatever it finds.
    disowned  integer NOT NULL CHECK (disowned IN (0, 1))
);
