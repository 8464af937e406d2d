-- Who asked, as the body says it: read by the database itself, so that records of any age and version have it.
-- Only a body that names an initiator is parsed. As in comparable_json, which is not called here: its text means the
-- same only in a session with the settings of the service.
CREATE FUNCTION initiator_of(body text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN strpos(body, '"auditrace.initiator.id":') > 0
        THEN replace(body, E'\\u0000', E'\\ufffd')::jsonb -> 'attributes' ->> 'auditrace.initiator.id'
    END
$$;

CREATE INDEX audit_records_by_initiator ON audit_records (tenant_id, (initiator_of(body) COLLATE "C"), observed_ns)
WHERE initiator_of(body) COLLATE "C" IS NOT NULL;
