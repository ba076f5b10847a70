"""Batches: made, checked, leased to gateways line by line, and written out. docs/batches.md tells the whole story."""
