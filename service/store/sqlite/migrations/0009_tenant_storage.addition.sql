-- How many bytes of records, inputs and artifacts each tenant stores. The database counts in the transaction that stores
-- them, so that every process of every version counts. What anybody can cause without a credential (actor anonymous),
-- and what the service does by itself (actor auditrace), counts for no tenant.
CREATE TABLE tenant_storage (
    tenant_id TEXT PRIMARY KEY,
    bytes     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO tenant_storage (tenant_id, bytes)
SELECT tenant_id, sum(bytes) FROM (
    SELECT tenant_id, length(CAST(body AS BLOB)) + length(otlp) AS bytes FROM audit_records
    WHERE actor_id NOT IN ('anonymous', 'auditrace')
    UNION ALL
    SELECT tenant_id, size FROM job_inputs JOIN jobs USING (job_id)
    UNION ALL
    SELECT tenant_id, size FROM job_artifacts JOIN jobs USING (job_id)
) GROUP BY tenant_id;

CREATE TRIGGER tenant_storage_has_records AFTER INSERT ON audit_records
WHEN NEW.actor_id NOT IN ('anonymous', 'auditrace')
BEGIN
    INSERT INTO tenant_storage (tenant_id, bytes)
    VALUES (NEW.tenant_id, length(CAST(NEW.body AS BLOB)) + length(NEW.otlp))
    ON CONFLICT (tenant_id) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER tenant_storage_has_inputs AFTER INSERT ON job_inputs
BEGIN
    INSERT INTO tenant_storage (tenant_id, bytes) SELECT tenant_id, NEW.size FROM jobs WHERE job_id = NEW.job_id
    ON CONFLICT (tenant_id) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER tenant_storage_has_replaced_inputs AFTER UPDATE ON job_inputs
BEGIN
    UPDATE tenant_storage SET bytes = bytes + NEW.size - OLD.size
    WHERE tenant_id = (SELECT tenant_id FROM jobs WHERE job_id = NEW.job_id);
END;

CREATE TRIGGER tenant_storage_has_artifacts AFTER INSERT ON job_artifacts
BEGIN
    INSERT INTO tenant_storage (tenant_id, bytes) SELECT tenant_id, NEW.size FROM jobs WHERE job_id = NEW.job_id
    ON CONFLICT (tenant_id) DO UPDATE SET bytes = bytes + excluded.bytes;
END;
