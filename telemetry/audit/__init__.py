"""The audit record: its body, hash, chain and OTLP bytes, and its verification (docs/audit-format.md)."""
