"""Declares every name that leaves the process, in YAML, and generates the constants of these names."""
