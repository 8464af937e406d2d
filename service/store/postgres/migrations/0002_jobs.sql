-- The jobs. Every job version has exactly one record and the other way round, checked at commit.

CREATE TABLE jobs (
    job_id        text COLLATE "C" PRIMARY KEY,
    tenant_id     text COLLATE "C" NOT NULL,
    template      text COLLATE "C" NOT NULL,
    status        text COLLATE "C" NOT NULL,
    version       bigint NOT NULL,
    created_by    text COLLATE "C" NOT NULL,
    created_ns    bigint NOT NULL,
    not_before_ns bigint NOT NULL,
    -- The whole job as JSON (service/jobs/model.py); the columns beside it are for queries and constraints.
    document      text NOT NULL,
    CHECK (comparable_json(document) @> jsonb_build_object('job_id', job_id, 'status', status, 'version', version))
);

CREATE TRIGGER jobs_begin_at_the_first_version BEFORE INSERT ON jobs FOR EACH ROW WHEN (NEW.version <> 1)
EXECUTE FUNCTION refuse('a job begins once, at version 1');

CREATE FUNCTION check_job_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.version <> OLD.version + 1 OR NEW.job_id <> OLD.job_id
        OR NOT EXISTS (SELECT FROM job_versions WHERE job_id = OLD.job_id AND version = OLD.version)
    THEN
        RAISE EXCEPTION USING ERRCODE = 'restrict_violation', MESSAGE = 'a job changes by one version at a time';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER jobs_change_by_versions BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION check_job_change();

CREATE TRIGGER jobs_stay BEFORE DELETE ON jobs FOR EACH ROW
EXECUTE FUNCTION refuse('jobs are never deleted');

CREATE TRIGGER jobs_are_not_emptied BEFORE TRUNCATE ON jobs
EXECUTE FUNCTION refuse('jobs are never deleted');

CREATE INDEX jobs_by_tenant ON jobs (tenant_id, created_ns, job_id);
CREATE INDEX jobs_by_status ON jobs (tenant_id, status, created_ns, job_id);
CREATE INDEX jobs_by_template ON jobs (tenant_id, template, created_ns, job_id);
CREATE INDEX jobs_by_creator ON jobs (tenant_id, created_by, created_ns, job_id);
CREATE INDEX jobs_queued ON jobs (tenant_id, not_before_ns, job_id) WHERE status = 'queued';
CREATE INDEX jobs_due ON jobs (not_before_ns) WHERE status = 'queued';

CREATE TABLE job_versions (
    job_id          text COLLATE "C" NOT NULL REFERENCES jobs (job_id) DEFERRABLE INITIALLY DEFERRED,
    version         bigint NOT NULL CHECK (version >= 1),
    status          text COLLATE "C" NOT NULL,
    record_id       text COLLATE "C" NOT NULL UNIQUE,
    -- Of the job's document at that version, so that `auditrace doctor` notices a document changed behind its back.
    document_sha256 text NOT NULL,
    PRIMARY KEY (job_id, version),
    UNIQUE (job_id, version, status),
    UNIQUE (job_id, version, record_id)
);

-- No version, and so no record of one, without the change of the job.
CREATE FUNCTION check_job_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM jobs WHERE job_id = NEW.job_id AND version = NEW.version AND status = NEW.status
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'restrict_violation', MESSAGE = 'the history of a job follows the job';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER job_versions_follow_their_job BEFORE INSERT ON job_versions FOR EACH ROW
EXECUTE FUNCTION check_job_version();

CREATE TRIGGER job_versions_are_not_changed BEFORE UPDATE OR DELETE ON job_versions FOR EACH ROW
EXECUTE FUNCTION refuse('the history of a job is append-only');

CREATE TRIGGER job_versions_are_not_emptied BEFORE TRUNCATE ON job_versions
EXECUTE FUNCTION refuse('the history of a job is append-only');

ALTER TABLE jobs ADD FOREIGN KEY (job_id, version, status) REFERENCES job_versions (job_id, version, status)
    DEFERRABLE INITIALLY DEFERRED;

-- A record that states a job version describes a change that did happen.
ALTER TABLE audit_record_keys ADD FOREIGN KEY (versioned_job, target_version, record_id)
    REFERENCES job_versions (job_id, version, record_id) DEFERRABLE INITIALLY DEFERRED;

-- The record of a version states that version. No foreign key, which would need an index over all records of its own;
-- keys of records are never removed, so looking once is enough.
CREATE FUNCTION require_record_of_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM audit_record_keys
        WHERE record_id = NEW.record_id AND versioned_job = NEW.job_id AND target_version = NEW.version
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation',
            MESSAGE = format('version %s of job %s has no record that states it', NEW.version, NEW.job_id);
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER job_versions_have_records AFTER INSERT ON job_versions
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION require_record_of_version();

CREATE TABLE job_runs (
    job_id         text COLLATE "C" NOT NULL REFERENCES jobs (job_id),
    number         bigint NOT NULL,
    status         text NOT NULL,
    worker_id      text COLLATE "C" NOT NULL,
    document       text NOT NULL,
    -- The lease: set while the run is in progress, and only then.
    lease_until_ns bigint,
    PRIMARY KEY (job_id, number),
    CHECK ((status = 'running') = (lease_until_ns IS NOT NULL))
);

CREATE INDEX job_runs_leased ON job_runs (lease_until_ns) WHERE lease_until_ns IS NOT NULL;
CREATE INDEX job_runs_by_worker ON job_runs (worker_id) WHERE lease_until_ns IS NOT NULL;

-- When each tenant last had a run started, so that the long queue of one does not keep another from its turn.
CREATE TABLE tenant_turns (
    tenant_id text COLLATE "C" PRIMARY KEY,
    last_ns   bigint NOT NULL
) WITH (fillfactor = 40);

CREATE TABLE job_inputs (
    job_id  text COLLATE "C" NOT NULL REFERENCES jobs (job_id),
    name    text COLLATE "C" NOT NULL,
    size    bigint NOT NULL,
    sha256  text NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (job_id, name)
);

CREATE TABLE job_artifacts (
    job_id  text COLLATE "C" NOT NULL,
    run     bigint NOT NULL,
    name    text COLLATE "C" NOT NULL,
    size    bigint NOT NULL,
    sha256  text NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (job_id, run, name),
    FOREIGN KEY (job_id, run) REFERENCES job_runs (job_id, number)
);

-- Sensitive parameters, encrypted under the deployment's secret.
CREATE TABLE job_secrets (
    job_id     text COLLATE "C" NOT NULL REFERENCES jobs (job_id),
    name       text COLLATE "C" NOT NULL,
    ciphertext bytea NOT NULL,
    PRIMARY KEY (job_id, name)
);

CREATE TABLE api_keys (
    key_id        text COLLATE "C" PRIMARY KEY,
    tenant_id     text COLLATE "C" NOT NULL,
    name          text COLLATE "C" NOT NULL,
    roles         text NOT NULL,
    secret_sha256 text NOT NULL,
    created_ns    bigint NOT NULL,
    revoked_ns    bigint,
    -- A name is an actor id: never given to a second key.
    UNIQUE (tenant_id, name)
);

CREATE TRIGGER api_keys_stay BEFORE DELETE ON api_keys FOR EACH ROW
EXECUTE FUNCTION refuse('keys are revoked, never deleted');

CREATE TRIGGER api_keys_are_not_emptied BEFORE TRUNCATE ON api_keys
EXECUTE FUNCTION refuse('keys are revoked, never deleted');

CREATE TABLE idempotency_keys (
    tenant_id   text COLLATE "C" NOT NULL,
    actor_id    text COLLATE "C" NOT NULL,
    route       text COLLATE "C" NOT NULL,
    key_sha256  text COLLATE "C" NOT NULL,
    body_sha256 text NOT NULL,
    job_id      text NOT NULL,
    expires_ns  bigint NOT NULL,
    PRIMARY KEY (tenant_id, actor_id, route, key_sha256)
);

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_ns);
