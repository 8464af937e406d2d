"""Running commands as subprocesses within limits. A supervisor kills the run when its worker dies."""
