"""Steps 4 to 10 of the verification: what the records say together."""
