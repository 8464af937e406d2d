-- Who asked, as the body says it: read by the database itself, so that records of any age and version have it.
-- Only a body that names an initiator is parsed.
CREATE FUNCTION initiator_of(body text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN strpos(body, '"auditrace.initiator.id":') > 0
        THEN comparable_json(body) -> 'attributes' ->> 'auditrace.initiator.id'
    END
$$;

CREATE INDEX audit_records_by_initiator ON audit_records (tenant_id, (initiator_of(body) COLLATE "C"), observed_ns)
WHERE initiator_of(body) COLLATE "C" IS NOT NULL;
