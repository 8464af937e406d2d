-- The secrets of API keys, numbered from 1 in each key: append-only. The last one is in force.
CREATE TABLE api_key_secrets (
    key_id            text COLLATE "C" NOT NULL REFERENCES api_keys (key_id),
    number            bigint NOT NULL CHECK (number >= 1),
    secret_sha256     text NOT NULL,
    made_ns           bigint NOT NULL,
    -- The secret before it, and until when that one is accepted too; NULL with the first one.
    previous_sha256   text,
    previous_until_ns bigint,
    -- The record that states this secret.
    record_id         text COLLATE "C" NOT NULL
        REFERENCES audit_record_keys (record_id) DEFERRABLE INITIALLY DEFERRED,
    -- Under the deployment's secret, over the whole key: whoever can only write the database can make no key.
    mac               text NOT NULL,
    PRIMARY KEY (key_id, number)
);

CREATE FUNCTION check_secret_of_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM api_key_secrets WHERE key_id = NEW.key_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
            MESSAGE = 'a secret of a key is stored once, behind the one before';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER api_key_secrets_follow_one_another BEFORE INSERT ON api_key_secrets FOR EACH ROW
EXECUTE FUNCTION check_secret_of_key();

CREATE TRIGGER api_key_secrets_are_not_changed BEFORE UPDATE OR DELETE ON api_key_secrets FOR EACH ROW
EXECUTE FUNCTION refuse('secrets of keys are append-only');

CREATE TRIGGER api_key_secrets_are_not_emptied BEFORE TRUNCATE ON api_key_secrets
EXECUTE FUNCTION refuse('secrets of keys are append-only');

-- Every key with its present secret.
CREATE VIEW present_api_keys AS
SELECT
    api_keys.key_id, name, tenant_id, roles, api_keys.secret_sha256, created_ns, revoked_ns, expires_ns, person,
    number, present.secret_sha256 AS present_sha256, made_ns, previous_sha256, previous_until_ns, record_id, mac
FROM api_keys LEFT JOIN api_key_secrets AS present ON present.key_id = api_keys.key_id
    AND number = (SELECT max(number) FROM api_key_secrets WHERE key_id = api_keys.key_id);

-- The few records that state keys are found without a search through all others.
CREATE INDEX audit_records_of_keys ON audit_records (target_id)
WHERE event_name IN ('key.create', 'key.adopt', 'key.rotate', 'key.revoke') AND result = 'success';

-- The records of changes of keys that were carried out; their target is the name of the key.
CREATE VIEW key_records AS
SELECT target_id, record_id, event_name, body FROM audit_records
WHERE event_name IN ('key.create', 'key.adopt', 'key.rotate', 'key.revoke') AND result = 'success';

-- Every key beside each of these records whose target has its name; one row for a key without any.
CREATE VIEW api_keys_on_record AS
SELECT present_api_keys.*, records.record_id AS change_id, event_name, body
FROM present_api_keys LEFT JOIN key_records AS records ON target_id = name;
