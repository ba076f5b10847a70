"""Step 6 of a request: call an upstream, whoever it is."""
