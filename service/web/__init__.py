"""The files of the audit explorer page; no code."""
