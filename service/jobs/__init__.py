"""Jobs without I/O: the model, its transitions, templates, plans; and the runner that executes a plan."""
