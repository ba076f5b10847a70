"""Lines of batches, run beside the callers who wait: whenever few of those are in flight, and through the same path."""
