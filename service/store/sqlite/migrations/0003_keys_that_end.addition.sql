-- What the previous release does not need to know, by name; it refuses only a `user_version` that is newer than its own.
CREATE TABLE schema_additions (
    name TEXT PRIMARY KEY
) STRICT;

ALTER TABLE api_keys ADD COLUMN expires_ns INTEGER;

CREATE TRIGGER api_keys_keep_their_end BEFORE UPDATE ON api_keys
WHEN NEW.expires_ns IS NOT OLD.expires_ns
BEGIN
    SELECT RAISE(ABORT, 'a key is revoked once, and not changed otherwise');
END;

-- Which key was used when for the last time, to the minute.
CREATE TABLE api_key_uses (
    key_id  TEXT PRIMARY KEY REFERENCES api_keys (key_id),
    used_ns INTEGER NOT NULL
) STRICT;
