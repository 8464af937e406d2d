"""Verification of any copy of the ledger, by anyone who holds the public key (docs/audit-format.md, section 7)."""

from telemetry.audit.verify.compare import Comparison, Copy, compare
from telemetry.audit.verify.findings import Code, Finding
from telemetry.audit.verify.proof import verify_proof
from telemetry.audit.verify.proof_report import ProofReport
from telemetry.audit.verify.read.archive import read_copy
from telemetry.audit.verify.read.found import Found, Index, SourcePlace
from telemetry.audit.verify.read.kinds import NoCopy, no_copies_in, proof_in
from telemetry.audit.verify.report import Report, Verdict
from telemetry.audit.verify.scope import Expected, KnownCheckpoint, KnownReceipt, Scope
from telemetry.audit.verify.sources import Progress
from telemetry.audit.verify.verifier import verify, verify_copy

__all__ = [
    "Code",
    "Comparison",
    "Copy",
    "Expected",
    "Finding",
    "Found",
    "Index",
    "KnownCheckpoint",
    "KnownReceipt",
    "NoCopy",
    "Progress",
    "ProofReport",
    "Report",
    "Scope",
    "SourcePlace",
    "Verdict",
    "compare",
    "no_copies_in",
    "proof_in",
    "read_copy",
    "verify",
    "verify_copy",
    "verify_proof",
]
