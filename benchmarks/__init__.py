"""Benchmarks: each prints a table with medians and ratios to a reference in the same run. Never a timed test."""
