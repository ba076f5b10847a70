"""Finding and replacing what must not be said, in whole texts and in texts that still grow. Pure."""
