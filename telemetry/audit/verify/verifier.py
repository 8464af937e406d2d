"""Verifies a copy of the ledger: the ten steps of docs/audit-format.md, section 7, in one reading of the copy.

1. *Read* (`read/`): every copy of every record, from whatever carries it. Nothing can be said of what is not read.
2. *Body* (`record/body.py`): what is hashed is canonical and complete. Otherwise two texts could say the same, and one
   text could say two things.
3. *Index* (`record/index.py`): what the log record says beside the body is what the body says. Otherwise a search by
   the index would show what was never sealed.
4. *Duplicates* (`ledger/streams.py`, `ledger/ids.py`): one number and one id belong to one record. A copy may hold a
   record many times; two different records in one place are tampering.
5. *Numbers* (`ledger/streams.py`): they run from 1, so that nothing can be left out of the middle.
6. *Links* (`ledger/streams.py`): each record names the one before it, so that nothing can be put in or changed.
7. *Signatures* (`record/intake.py`, `ledger/keyring.py`, `ledger/checkpoints.py`): only the holder of the private key
   makes a checkpoint. Anybody can make a chain of hashes.
8. *Checkpoints* (`ledger/checkpoints.py`): none is missing or replaced. Otherwise a forger could leave out what only
   that one covers.
9. *Tips* (`ledger/tips.py`): what a checkpoint names is there, with the hashes that it names. So the signature covers
   the records too, and none can be cut off or written again.
10. *The rest* (`ledger/streams.py`, `ledger/coverage.py`): what no checkpoint covers yet is counted. It may not be
    older than the last checkpoint, nor follow the end of its stream: it would have been put in later.

Steps 2 and 3 have a fast path for records with which nothing is wrong (`record/fast_path.py`, docs/adr/0030). Steps 1
to 3 and the signatures under given keys look at one record at a time, and run while the copy is read, in any number of
processes. The checkpoints (7 and 8) come next, because they decide which of two records with one number is the true
one. The other steps then go through the streams one by one. What is kept of records is sorted on disk, so that memory
grows with streams and findings only, not with records.
"""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from telemetry.audit.verify.ledger.examination import Examination
from telemetry.audit.verify.read.found import Found
from telemetry.audit.verify.report import Report
from telemetry.audit.verify.scope import Expected, Scope
from telemetry.audit.verify.sources import Progress, processors, take_in


def verify(
    found: Iterable[Found],
    *,
    public_keys: Sequence[Ed25519PublicKey] = (),
    scope: Scope | None = None,
    expected: Expected | None = None,
) -> Report:
    """Return what a copy of the ledger shows: every finding, whatever the order and the number of copies of a record.

    "intact" says that, up to `last_checkpoint`, nothing in the copy was dropped, edited, reordered or inserted by
    anyone who lacks the private key. It does not say that the last checkpoint in the copy is the last there ever was:
    that shows only against what is `expected`. Without `public_keys` no signature is checked, and "intact" says only
    that the copy agrees with itself. The verdict is "not_checked" when there is no record, or with `public_keys` no
    checkpoint to rely on.

    Raises:
        OSError: there is no room on disk for what memory does not hold.
    """
    return verify_copy((), found, public_keys=public_keys, scope=scope, expected=expected, workers=1)


def verify_copy(
    paths: Iterable[Path],
    found: Iterable[Found] = (),
    *,
    public_keys: Sequence[Ed25519PublicKey] = (),
    scope: Scope | None = None,
    expected: Expected | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Verify files and folders, and what other readers `found`, as one copy; as `verify`, with all processors.

    The main module of the process is imported again by `workers` processes, and is to be guarded for that.

    Args:
        paths: files and folders, as `read` takes them.
        found: copies of records from elsewhere.
        public_keys: those of the private keys that may have signed.
        scope: what part of the ledger to verify; all of it when None.
        expected: what is known of the ledger from elsewhere.
        workers: how many processes read; as many as there are processors when None.
        progress: is called with the bytes read so far and all bytes, now and then.

    Raises:
        OSError: a file cannot be read, or there is no room on disk for what memory does not hold.
    """
    with tempfile.TemporaryDirectory(prefix="auditrace-verify-") as folder:
        # 1. to 3., and the signatures of 7.
        reading = take_in(
            list(paths), found, public_keys, Path(folder), workers=workers or processors(), progress=progress
        )
        examination = Examination(reading, public_keys, scope or Scope(), expected or Expected(), Path(folder))
        # 7. and 8., and what is known of the end from elsewhere.
        examination.check_checkpoints()
        examination.check_end()
        # 4. to 6., 9. and 10., stream by stream; ids are unique over all of them.
        examination.check_streams()
        examination.check_ids()
        return examination.report()
