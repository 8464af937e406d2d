"""Measurements, in ratios against a peer or a limit of the same run: `python -m tests.benchmarks`."""
