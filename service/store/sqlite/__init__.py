"""The embedded store: one SQLite file, one lane a process, several processes on one file allowed."""
