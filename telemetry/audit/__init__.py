"""The audit record from its members to its bytes: body, hash, chain, OTLP, verification (docs/audit-format.md)."""
