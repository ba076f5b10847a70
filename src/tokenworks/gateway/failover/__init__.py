"""Step 6 of a request: attempts on its targets until one has answered, whatever upstreams do meanwhile."""
