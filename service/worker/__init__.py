"""The worker: takes queued jobs, runs them under leases, records how they ended."""
