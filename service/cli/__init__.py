"""The command line: arguments, exit statuses and what people and machines read."""
