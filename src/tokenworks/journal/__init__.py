"""Contract gateway -> control: what a gateway did, written down before it is told to anybody."""
