"""Metrics and logs that every plane writes the same way."""
