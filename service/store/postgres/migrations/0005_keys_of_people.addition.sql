-- Whose key it is, by the name under which the deployment knows the person; NULL if not known.
ALTER TABLE api_keys ADD COLUMN person text;

CREATE TRIGGER api_keys_keep_their_person BEFORE UPDATE OF person ON api_keys FOR EACH ROW
WHEN (NEW.person IS DISTINCT FROM OLD.person)
EXECUTE FUNCTION refuse('a key is revoked once, and not changed otherwise');
