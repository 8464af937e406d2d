-- The configurations in force, as processes recorded them: append-only, in the order of their records.
CREATE TABLE configurations (
    number    bigint PRIMARY KEY CHECK (number >= 1),
    -- Where it is in force: in the processes of this kind on this host.
    source    text COLLATE "C" NOT NULL,
    host      text COLLATE "C" NOT NULL,
    -- Settings and templates as canonical JSON; without secrets.
    document  text NOT NULL,
    -- Whether its processes deliver records.
    delivers  integer NOT NULL CHECK (delivers IN (0, 1)),
    -- The record that states its hash. Configurations that are the same on several hosts have one record.
    record_id text COLLATE "C" NOT NULL REFERENCES audit_record_keys (record_id) DEFERRABLE INITIALLY DEFERRED,
    -- The configuration with the sink that was in force until then; NULL if the record is offered to no sink.
    before    bigint REFERENCES configurations (number),
    -- Under the deployment's secret: whoever can only write the database cannot hide a change from the next start.
    mac       text NOT NULL
);

CREATE INDEX configurations_by_place ON configurations (source, host, number);

CREATE FUNCTION check_configuration() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM configurations) THEN
        RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
            MESSAGE = 'a configuration is stored once, behind the one before';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER configurations_follow_one_another BEFORE INSERT ON configurations FOR EACH ROW
EXECUTE FUNCTION check_configuration();

CREATE TRIGGER configurations_are_not_changed BEFORE UPDATE OR DELETE ON configurations FOR EACH ROW
EXECUTE FUNCTION refuse('configurations are append-only');

CREATE TRIGGER configurations_are_not_emptied BEFORE TRUNCATE ON configurations
EXECUTE FUNCTION refuse('configurations are append-only');

-- The offers of records to the sink before that have ended: `answer` is NULL if that sink took them.
CREATE TABLE configuration_offers (
    number   bigint PRIMARY KEY REFERENCES configurations (number),
    answer   text,
    ended_ns bigint NOT NULL
);
