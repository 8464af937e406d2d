"""Jobs without I/O: the model, its transitions, templates and plans."""
