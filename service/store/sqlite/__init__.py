"""The embedded store: one SQLite file, which several processes may use, each with one lane."""
