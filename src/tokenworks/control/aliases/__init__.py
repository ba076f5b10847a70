"""Virtual models: which versions of them there are, and what a new one would do."""
