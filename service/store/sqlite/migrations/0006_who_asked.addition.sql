-- Who asked, as the body says it: read by the database itself, so that records of any age and version have it. Only a
-- body that names an initiator is parsed. A damaged one is no error here: what reads the ledger reports it.
CREATE INDEX audit_records_by_initiator ON audit_records (
    CASE WHEN instr(body, '"auditrace.initiator.id":') > 0 AND json_valid(body)
    THEN json_extract(replace(body, '\u0000', '\ufffd'), '$.attributes."auditrace.initiator.id"') END, position
) WHERE CASE WHEN instr(body, '"auditrace.initiator.id":') > 0 AND json_valid(body)
    THEN json_extract(replace(body, '\u0000', '\ufffd'), '$.attributes."auditrace.initiator.id"') END IS NOT NULL;

CREATE INDEX audit_records_by_result ON audit_records (result, position);
