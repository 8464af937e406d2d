"""Step 1 of the verification: reads the records of a copy, whatever carries them."""
