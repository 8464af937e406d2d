"""What clients, workers and operators can do: each operation decides, and commits the change with its record."""
