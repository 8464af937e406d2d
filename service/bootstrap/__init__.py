"""The composition root: the one place that names concrete adapters and reads clock, randomness and process id."""
