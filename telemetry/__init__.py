"""Audit records (canonical form, chains, OTLP bytes) and the OpenTelemetry providers, for any service."""
