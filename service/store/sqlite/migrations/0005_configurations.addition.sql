-- The configurations in force, as processes recorded them: append-only, in the order of their records.
CREATE TABLE configurations (
    number    INTEGER PRIMARY KEY CHECK (number >= 1),
    -- Where it is in force: in the processes of this kind on this host.
    source    TEXT NOT NULL,
    host      TEXT NOT NULL,
    -- Settings and templates as canonical JSON; without secrets.
    document  TEXT NOT NULL,
    -- Whether its processes deliver records.
    delivers  INTEGER NOT NULL CHECK (delivers IN (0, 1)),
    -- The record that states its hash. Configurations that are the same on several hosts have one record.
    record_id TEXT NOT NULL REFERENCES audit_records (record_id) DEFERRABLE INITIALLY DEFERRED,
    -- The configuration with the sink that was in force until then; NULL if the record is offered to no sink.
    before    INTEGER REFERENCES configurations (number),
    -- Under the deployment's secret: whoever can only write the database cannot hide a change from the next start.
    mac       TEXT NOT NULL
) STRICT;

CREATE INDEX configurations_by_place ON configurations (source, host, number);

-- Also keeps INSERT OR REPLACE out, which would delete without firing a trigger.
CREATE TRIGGER configurations_follow_one_another BEFORE INSERT ON configurations
WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM configurations)
BEGIN
    SELECT RAISE(ABORT, 'a configuration is stored once, behind the one before');
END;

CREATE TRIGGER configurations_are_not_changed BEFORE UPDATE ON configurations
BEGIN
    SELECT RAISE(ABORT, 'configurations are append-only');
END;

CREATE TRIGGER configurations_are_not_deleted BEFORE DELETE ON configurations
BEGIN
    SELECT RAISE(ABORT, 'configurations are append-only');
END;

-- The offers of records to the sink before that have ended: `answer` is NULL if that sink took them.
CREATE TABLE configuration_offers (
    number   INTEGER PRIMARY KEY REFERENCES configurations (number),
    answer   TEXT,
    ended_ns INTEGER NOT NULL
) STRICT;
