"""From a gateway's journal to rows of usage."""
