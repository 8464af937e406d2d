-- Checkpoints: what was signed over, which streams are alive, and which key signs.

-- Until when the stream's process answers for it; renewed by its lane, the database's machine being the clock.
ALTER TABLE audit_streams ADD COLUMN alive_until_ns INTEGER NOT NULL DEFAULT 0;

-- The last one signs. Append-only: what a rotation retires is the key before the one that it brings.
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

-- Also keeps INSERT OR REPLACE out, which would delete without firing a trigger.
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

-- Also keeps INSERT OR REPLACE out, which would delete without firing a trigger.
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

-- The last tip of each stream that a checkpoint named: the next one goes on behind it.
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

-- Streams that checkpoints do not sign over, for readiness and doctor.
CREATE TABLE refused_streams (
    stream_id TEXT PRIMARY KEY,
    reason    TEXT NOT NULL,
    since_ns  INTEGER NOT NULL,
    -- By the stream's own lane, which alone knows what it committed: no checkpoint signs over it, whatever it finds.
    disowned  INTEGER NOT NULL CHECK (disowned IN (0, 1))
) STRICT;
