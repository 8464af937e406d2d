"""Where jobs and records are kept: complete stores that pass one contract suite (tests/contract)."""
