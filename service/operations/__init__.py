"""The operations of clients, workers and operators. Each decides, and commits its change together with its record."""
