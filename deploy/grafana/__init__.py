"""Grafana: provisioning, and dashboards generated from boards that are tested against real backends."""
