-- Endpoints of webhooks that were started once, by the name in the operator's file. Error and failing_since_ns are the
-- last state of the deliveries, for other processes to read; both are NULL while deliveries succeed.
CREATE TABLE webhook_endpoints (
    name             TEXT PRIMARY KEY,
    registered_ns    INTEGER NOT NULL,
    error            TEXT,
    failing_since_ns INTEGER
) STRICT;

-- A cursor for each endpoint and stream: every record at or before it was acknowledged by the endpoint, or is not for
-- it. A stream without a cursor begins at its first record.
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
