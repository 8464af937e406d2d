"""The store for many machines: one PostgreSQL, any number of processes, each with a few lanes."""
