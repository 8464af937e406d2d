-- What the previous release does not need to know, by name; it refuses only a number of `schema_steps` that is newer than
-- its own.
CREATE TABLE schema_additions (
    name       text COLLATE "C" PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE api_keys ADD COLUMN expires_ns bigint;

CREATE TRIGGER api_keys_keep_their_end BEFORE UPDATE OF expires_ns ON api_keys FOR EACH ROW
WHEN (NEW.expires_ns IS DISTINCT FROM OLD.expires_ns)
EXECUTE FUNCTION refuse('a key is revoked once, and not changed otherwise');

-- Which key was used when for the last time, to the minute.
CREATE TABLE api_key_uses (
    key_id  text COLLATE "C" PRIMARY KEY REFERENCES api_keys (key_id),
    used_ns bigint NOT NULL
);
