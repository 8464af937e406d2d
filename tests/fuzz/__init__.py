"""Programs that give bytes to readers of outside input, and the inputs that once mattered."""
