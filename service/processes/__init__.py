"""The long-running processes: what each of them starts, and in which order it stops, so that nothing is lost."""
