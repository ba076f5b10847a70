"""Limits and budgets: one atomic reservation before a request leaves, replaced by what it really took."""
