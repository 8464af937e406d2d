"""Grafana: provisioning, and dashboards made from boards that are tested against real backends."""
