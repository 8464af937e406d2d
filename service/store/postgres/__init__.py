"""The store of many machines: one PostgreSQL, any number of processes, each with a few lanes."""
