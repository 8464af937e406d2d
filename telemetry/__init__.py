"""Audit records, their canonical form, chains and OTLP bytes, and the OpenTelemetry providers; for any service."""
