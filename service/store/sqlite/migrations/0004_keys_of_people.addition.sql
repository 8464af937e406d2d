-- Whose key it is, by the name under which the deployment knows the person; NULL if not known.
ALTER TABLE api_keys ADD COLUMN person TEXT;

CREATE TRIGGER api_keys_keep_their_person BEFORE UPDATE ON api_keys
WHEN NEW.person IS NOT OLD.person
BEGIN
    SELECT RAISE(ABORT, 'a key is revoked once, and not changed otherwise');
END;
