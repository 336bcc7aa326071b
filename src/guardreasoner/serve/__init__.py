"""The HTTP service: one core, many wire formats."""
