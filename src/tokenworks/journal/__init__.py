"""Contract gateway -> control: what a gateway did, written down before it is told to anybody.

A gateway holds a `writer.Journal` and a `shipper.Shipper`, control reads with `framing.read_batch`;
docs/journal.md is the contract.
"""
