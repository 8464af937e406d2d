"""The one place where every name that leaves the process is declared (YAML), and the generator of its constants."""
