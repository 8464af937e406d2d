-- What a service needs that works with a role which owns nothing (service/store/postgres/rights.py).

-- The owner may make partitions of any month, other roles only those around the present time.
ALTER FUNCTION make_record_partitions(bigint) RENAME TO make_partitions_of_any_month;
REVOKE EXECUTE ON FUNCTION make_partitions_of_any_month(bigint) FROM PUBLIC;

CREATE FUNCTION make_record_partitions(moment_ns bigint) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    -- Here, current_user is the owner.
    IF abs(moment_ns - ledger_now_ns()) > 32 * 86400 * 1000000000::bigint
        AND NOT pg_has_role(session_user, current_user, 'MEMBER')
    THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = 'only the owner of the tables makes partitions for another time than the present';
    END IF;
    RETURN make_partitions_of_any_month(moment_ns);
END $$;

-- Keys of records come from this function alone, which runs with the rights of its owner.
ALTER FUNCTION register_record() SECURITY DEFINER;

-- Functions that read tables read those of the ledger, whatever search_path and temporary tables a session has.
DO $$
DECLARE
    reading text;
BEGIN
    FOREACH reading IN ARRAY ARRAY[
        'make_record_partitions(bigint)', 'make_partitions_of_any_month(bigint)', 'register_record()',
        'keep_cursor_within_stream()', 'check_job_change()', 'check_job_version()', 'require_record_of_version()',
        'check_signing_key()', 'check_checkpoint()', 'check_configuration()'
    ] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', reading, current_schema());
    END LOOP;
END $$;
