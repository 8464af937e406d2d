"""The job-operations service: jobs, HTTP, storage, workers. Only `bootstrap` names concrete adapters."""
