-- How many bytes of records, inputs and artifacts each tenant stores. The database counts in the transaction that stores
-- them, so that every process of every version counts. What anybody can cause without a credential (actor anonymous),
-- and what the service does by itself (actor auditrace), counts for no tenant.
CREATE TABLE tenant_storage (
    tenant_id text COLLATE "C" NOT NULL,
    -- Each session adds to a row of its own, so that lanes do not wait for each other; two sessions may share one.
    part      integer NOT NULL,
    bytes     bigint NOT NULL,
    PRIMARY KEY (tenant_id, part)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- The functions run with the rights of who migrates, so that a service needs no right to write the counts.
CREATE FUNCTION count_records() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO tenant_storage (tenant_id, part, bytes)
    SELECT tenant_id, pg_backend_pid() % 1024, sum(octet_length(body) + octet_length(otlp)) FROM added
    WHERE actor_id NOT IN ('anonymous', 'auditrace') GROUP BY tenant_id ORDER BY tenant_id
    ON CONFLICT (tenant_id, part) DO UPDATE SET bytes = tenant_storage.bytes + excluded.bytes;
    RETURN NULL;
END $$;

CREATE FUNCTION count_content() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO tenant_storage (tenant_id, part, bytes)
    SELECT tenant_id, pg_backend_pid() % 1024, NEW.size - CASE WHEN TG_OP = 'UPDATE' THEN OLD.size ELSE 0 END
    FROM jobs WHERE job_id = NEW.job_id
    ON CONFLICT (tenant_id, part) DO UPDATE SET bytes = tenant_storage.bytes + excluded.bytes;
    RETURN NULL;
END $$;

-- They read and write the tables of the ledger, whatever search_path and temporary tables a session has.
DO $$
DECLARE
    counting text;
BEGIN
    FOREACH counting IN ARRAY ARRAY['count_records()', 'count_content()', 'check_secret_of_key()'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', counting, current_schema());
    END LOOP;
END $$;

-- By statement: one that adds many records changes the count once.
CREATE TRIGGER tenant_storage_has_records AFTER INSERT ON audit_records
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_records();

CREATE TRIGGER tenant_storage_has_inputs AFTER INSERT OR UPDATE ON job_inputs FOR EACH ROW
EXECUTE FUNCTION count_content();

CREATE TRIGGER tenant_storage_has_artifacts AFTER INSERT ON job_artifacts FOR EACH ROW
EXECUTE FUNCTION count_content();

-- Behind the triggers, whose locks keep other processes from adding anything until this step is committed.
INSERT INTO tenant_storage (tenant_id, part, bytes)
SELECT tenant_id, 0, sum(bytes) FROM (
    SELECT tenant_id, octet_length(body) + octet_length(otlp) AS bytes FROM audit_records
    WHERE actor_id NOT IN ('anonymous', 'auditrace')
    UNION ALL
    SELECT tenant_id, size FROM job_inputs JOIN jobs USING (job_id)
    UNION ALL
    SELECT tenant_id, size FROM job_artifacts JOIN jobs USING (job_id)
) AS stored GROUP BY tenant_id;
