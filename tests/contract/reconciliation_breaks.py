"""What can be wrong in a database, each with the checks that find it: one catalogue for both stores."""

import hashlib
from collections.abc import Mapping
from typing import Final

from telemetry.audit.signer import Signer
from tests.contract.breaking import Break, damage_an_index, empty_an_index, let_a_partition_be_emptied, schema
from tests.support.both_stores import POSTGRES, SQLITE
from tests.support.ledger_maker import FOREIGN_KEY

_OTHER_BYTES = b"other bytes"
_OTHER_SHA256 = hashlib.sha256(_OTHER_BYTES).hexdigest()
_EARLIER_SHA256 = hashlib.sha256(b"1,2,3").hexdigest()
_CANCELLED = "event_name = 'job.cancel'"
_KEY_OF_CANCELLED = f"record_id = (SELECT record_id FROM audit_records WHERE {_CANCELLED})"
_LAST_FACT = "position = (SELECT max(position) FROM audit_records WHERE event_name = 'job.create')"
_KEY_OF_LAST_FACT = f"record_id = (SELECT record_id FROM audit_records WHERE {_LAST_FACT})"
_OF_CLOSED_STREAM = "stream_id = (SELECT stream_id FROM audit_streams WHERE closed = 1 ORDER BY opened_ns LIMIT 1)"
_A_RECORD = "record_id, 'x' FROM audit_records LIMIT 1"
_MALLORY = Signer(FOREIGN_KEY)

BREAKS: Final[Mapping[str, Break]] = {
    "a secret of no job": Break(["INSERT INTO job_secrets VALUES ('nobody', 'token', x'00')"], {"foreign_keys"}),
    "a version has a record that is not there": Break(
        ["UPDATE job_versions SET record_id = 'gone' WHERE (job_id, version) = (SELECT min(job_id), 1 FROM jobs)"],
        {"foreign_keys", "version_without_record", "record_without_version"},
    ),
    "a version is gone": Break(
        ["DELETE FROM job_versions WHERE version = 2 AND status = 'draft_ready'"],
        {"foreign_keys", "record_without_version", "version_gap", "change_differs"},
    ),
    "a job was changed without a version": Break(
        ["UPDATE jobs SET status = 'succeeded', document = <document that succeeded>"],
        {"foreign_keys", "job_differs", "document_differs"},
    ),
    "a document was changed": Break(["UPDATE jobs SET document = <document of mallory>"], {"document_differs"}),
    "a version's status was changed": Break(
        ["UPDATE job_versions SET status = 'confirmed' WHERE version = 2 AND status = 'draft_ready'"],
        {"change_differs"},
    ),
    "a record's actor was changed where it is found by": Break(
        ["UPDATE audit_records SET actor_id = 'mallory' WHERE " + _CANCELLED], {"column_differs"}
    ),
    "a record's time was changed where it is found by": Break(
        ["UPDATE audit_records SET timestamp_ns = timestamp_ns + 1 WHERE " + _CANCELLED], {"column_differs"}
    ),
    "a record's observed time was changed where it is found by": Break(
        ["UPDATE audit_records SET observed_ns = observed_ns - 1 WHERE " + _CANCELLED],
        {"column_differs"},
        more={POSTGRES: {"integrity"}},
    ),
    "a record is found under another job": Break(
        ["UPDATE audit_records SET job_id = NULL WHERE " + _CANCELLED], {"column_differs"}
    ),
    "a run is of another worker": Break(["UPDATE job_runs SET worker_id = 'mallory'"], {"run_differs"}),
    "a run is gone": Break(["DELETE FROM job_artifacts", "DELETE FROM job_runs WHERE number = 1"], {"run_differs"}),
    "an artifact has other bytes": Break(["UPDATE job_artifacts SET payload = x'00'"], {"content_differs"}),
    "an input was exchanged": Break(
        [f"UPDATE job_inputs SET payload = x'{_OTHER_BYTES.hex()}', size = 11, sha256 = '{_OTHER_SHA256}'"],
        {"input_without_record"},
    ),
    "an input is an earlier one": Break(
        [f"UPDATE job_inputs SET payload = x'{b'1,2,3'.hex()}', sha256 = '{_EARLIER_SHA256}'"],
        {"input_without_record"},
    ),
    "an API key that nobody made": Break(
        ["INSERT INTO api_keys VALUES ('id', 'default', 'mallory', 'admin', 'hash', 1, NULL, NULL, NULL)"],
        {"key_without_record"},
    ),
    "an API key has other roles": Break(
        ["UPDATE api_keys SET roles = 'admin' WHERE name = 'kept'"], {"key_without_record"}
    ),
    "an API key is of another tenant": Break(
        ["UPDATE api_keys SET tenant_id = 'acme' WHERE name = 'kept'"], {"key_without_record"}
    ),
    "a revoked API key is accepted again": Break(
        ["UPDATE api_keys SET revoked_ns = NULL WHERE name = 'revoked'"], {"key_without_record"}
    ),
    "an API key is revoked and nobody did it": Break(
        ["UPDATE api_keys SET revoked_ns = 1 WHERE name = 'kept'"], {"key_without_record"}
    ),
    "an API key is made to last longer": Break(
        ["UPDATE api_keys SET expires_ns = 9 WHERE name = 'kept'"], {"key_without_record"}
    ),
    "an API key is made to last for ever": Break(
        ["UPDATE api_keys SET expires_ns = NULL WHERE name = 'revoked'"], {"key_without_record"}
    ),
    "an API key is of another person": Break(
        ["UPDATE api_keys SET person = 'mallory' WHERE name = 'kept'"], {"key_without_record"}
    ),
    "an API key is of nobody": Break(["UPDATE api_keys SET person = NULL WHERE name = 'kept'"], {"key_without_record"}),
    "a stored configuration was changed": Break(
        ["UPDATE configurations SET document = replace(document, '2', '1') WHERE number = 2"], {"configuration_differs"}
    ),
    "a stored configuration is gone": Break(
        ["DELETE FROM configuration_offers", "DELETE FROM configurations WHERE number = 2"], {"configuration_differs"}
    ),
    "a tip has another time": Break(
        [f"UPDATE audit_streams SET observed_ns = 1 WHERE {_OF_CLOSED_STREAM}"], {"tip_differs"}
    ),
    "a cursor is past its tip": Break(["UPDATE delivery_cursors SET number = number + 1000"], {"cursor_differs"}),
    "a cursor is gone": Break([f"DELETE FROM delivery_cursors WHERE {_OF_CLOSED_STREAM}"], {"cursor_differs"}),
    "a record is parked": Break(
        ["INSERT INTO parked_records SELECT stream_id, 2, '400 no', 1 FROM audit_streams WHERE closed = 1"], {"parked"}
    ),
    "a record is parked that was not tried": Break(
        [f"INSERT INTO parked_records SELECT stream_id, number, '', 1 FROM audit_records WHERE {_LAST_FACT}"],
        {"parked"},
    ),
    "a record is parked that is not there": Break(
        ["INSERT INTO parked_records SELECT stream_id, 1000, '400 no', 1 FROM audit_streams WHERE closed = 1"],
        {"parked", "foreign_keys"},
    ),
    "a checkpoint has another time": Break(["UPDATE audit_checkpoints SET observed_ns = 1"], {"checkpoint_differs"}),
    "the last checkpoint's row is gone": Break(
        ["DELETE FROM audit_checkpoints WHERE number = (SELECT max(number) FROM audit_checkpoints)"],
        {"foreign_keys", "checkpoint_differs", "anchor_differs"},
    ),
    "a checkpoint has another signature": Break(
        ["UPDATE audit_checkpoints SET signature = 'AAAA' WHERE number = 1"], {"checkpoint_differs", "mac"}
    ),
    "an anchor was moved": Break(
        [f"UPDATE audit_anchors SET number = number - 1 WHERE {_OF_CLOSED_STREAM}"],
        {"anchor_differs", "mac", "refused"},
    ),
    "a closed stream's tip was stored by somebody else": Break(
        [f"UPDATE audit_streams SET mac = 'x' WHERE {_OF_CLOSED_STREAM}"], {"mac"}
    ),
    "a key that somebody else registered": Break(
        [f"INSERT INTO signing_keys SELECT 2, 'f', 'p', 9, 1, {_A_RECORD}"],
        {"signing_key"},
    ),
    "a key of somebody else that is said to have signed all": Break(
        [f"INSERT INTO signing_keys SELECT 2, '{_MALLORY.fingerprint}', '{_MALLORY.public_pem}', 1, 1, {_A_RECORD}"],
        {"signing_key"},
    ),
    "the registration of the only key was forged": Break(
        ["UPDATE signing_keys SET mac = 'x'"], {"signing_key", "verify"}
    ),
    "the only key was exchanged": Break(
        [f"UPDATE signing_keys SET public_key = '{_MALLORY.public_pem}'"], {"signing_key", "verify"}
    ),
    "no key is registered": Break(["DELETE FROM signing_keys"], {"foreign_keys", "signing_key"}),
    "a stream that its lane disowned": Break(
        [f"INSERT INTO refused_streams SELECT stream_id, 'cut', 1, 1 FROM audit_streams WHERE {_OF_CLOSED_STREAM}"],
        {"refused"},
    ),
    "a body was edited, and the columns with it": Break(
        [
            f"UPDATE audit_records SET body = replace(body, 'anna', 'mary') WHERE {_CANCELLED}",
            f"UPDATE audit_records SET actor_id = 'mary' WHERE {_CANCELLED}",
        ],
        {"verify"},
    ),
    "what is delivered was edited": Break(
        [f"UPDATE audit_records SET otlp = <otlp of mary> WHERE {_CANCELLED}"], {"verify"}
    ),
    "a body is no JSON": Break(
        ["UPDATE audit_records SET body = 'x' || body WHERE " + _CANCELLED],
        {"change_differs", "column_differs", "verify"},
    ),
    "a text is none": Break(
        {SQLITE: ["UPDATE job_runs SET document = CAST(x'7bff7d' AS TEXT) WHERE number = 1"]}, {"run_differs"}
    ),
    "a record that waits for delivery is gone": Break(
        {
            SQLITE: [f"DELETE FROM audit_records WHERE {_LAST_FACT}"],
            POSTGRES: [
                f"DELETE FROM audit_record_keys WHERE {_KEY_OF_LAST_FACT}",
                f"DELETE FROM audit_records WHERE {_LAST_FACT}",
            ],
        },
        {"outbox_differs", "refused", "verify"},
    ),
    "a delivered record is gone": Break(
        [f"DELETE FROM audit_records WHERE {_CANCELLED}"],
        {"version_without_record", "verify"},
        more={SQLITE: {"foreign_keys"}, POSTGRES: {"integrity"}},
    ),
    "a record of no stream": Break(
        [
            f"DELETE FROM audit_anchors WHERE {_OF_CLOSED_STREAM}",
            f"DELETE FROM delivery_cursors WHERE {_OF_CLOSED_STREAM}",
            f"DELETE FROM audit_streams WHERE {_OF_CLOSED_STREAM}",
        ],
        {"foreign_keys"},
    ),
    "a key of a record names another place": Break(
        {POSTGRES: [f"UPDATE audit_record_keys SET observed_ns = observed_ns + 1 WHERE {_KEY_OF_CANCELLED}"]},
        {"integrity"},
    ),
    "an index lacks a row": Break({SQLITE: damage_an_index, POSTGRES: empty_an_index}, {"integrity"}),
    "a trigger is gone": Break(
        {
            SQLITE: schema("DROP TRIGGER audit_records_are_not_changed"),
            POSTGRES: schema("DROP TRIGGER audit_records_are_not_changed ON audit_records"),
        },
        {"schema"},
    ),
    "a trigger does nothing": Break(
        {
            SQLITE: schema(
                "DROP TRIGGER jobs_stay", "CREATE TRIGGER jobs_stay BEFORE DELETE ON jobs BEGIN SELECT 1; END"
            ),
            POSTGRES: schema(
                "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$"
            ),
        },
        {"schema"},
    ),
    "a trigger was added": Break(
        {
            SQLITE: schema(
                "CREATE TRIGGER quiet AFTER INSERT ON jobs"
                " BEGIN UPDATE api_keys SET revoked_ns = 1 WHERE name = ''; END"
            ),
            POSTGRES: schema("CREATE TRIGGER quiet AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION refuse('quiet')"),
        },
        {"schema"},
    ),
    "a trigger is switched off": Break({POSTGRES: schema("ALTER TABLE jobs DISABLE TRIGGER jobs_stay")}, {"schema"}),
    "a partition may be emptied": Break({POSTGRES: let_a_partition_be_emptied}, {"schema"}),
    "a constraint is gone": Break(
        {
            POSTGRES: schema(
                "ALTER TABLE audit_record_keys DROP CONSTRAINT audit_record_keys_stream_id_number_key CASCADE"
            )
        },
        {"schema"},
    ),
    "rows are hidden": Break({POSTGRES: schema("ALTER TABLE audit_records ENABLE ROW LEVEL SECURITY")}, {"schema"}),
}
