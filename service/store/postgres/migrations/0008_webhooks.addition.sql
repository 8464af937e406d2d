-- Endpoints of webhooks that were started once, by the name in the operator's file. Error and failing_since_ns are the
-- last state of the deliveries, for other processes to read; both are NULL while deliveries succeed.
CREATE TABLE webhook_endpoints (
    name             text COLLATE "C" PRIMARY KEY,
    registered_ns    bigint NOT NULL,
    error            text,
    failing_since_ns bigint
);

-- A cursor for each endpoint and stream: every record at or before it was acknowledged by the endpoint, or is not for
-- it. A stream without a cursor begins at its first record.
CREATE TABLE webhook_cursors (
    endpoint  text COLLATE "C" NOT NULL REFERENCES webhook_endpoints (name),
    stream_id text COLLATE "C" NOT NULL REFERENCES audit_streams (stream_id),
    number    bigint NOT NULL CHECK (number >= 0),
    PRIMARY KEY (endpoint, stream_id)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

CREATE TRIGGER webhook_cursors_move_forward BEFORE UPDATE ON webhook_cursors FOR EACH ROW
WHEN (NEW.endpoint <> OLD.endpoint OR NEW.stream_id <> OLD.stream_id OR NEW.number < OLD.number)
EXECUTE FUNCTION refuse('a cursor only moves forward');

CREATE TRIGGER webhook_cursors_stay_within_the_stream BEFORE INSERT OR UPDATE OF number ON webhook_cursors FOR EACH ROW
EXECUTE FUNCTION keep_cursor_within_stream();

CREATE TRIGGER webhook_cursors_stay BEFORE DELETE ON webhook_cursors FOR EACH ROW
EXECUTE FUNCTION refuse('cursors are never deleted');

CREATE TRIGGER webhook_cursors_are_not_emptied BEFORE TRUNCATE ON webhook_cursors
EXECUTE FUNCTION refuse('cursors are never deleted');
