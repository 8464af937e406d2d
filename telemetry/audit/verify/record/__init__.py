"""Steps 2 and 3 of the verification: what one record says by itself."""
