"""A provider that fails on purpose: faults by name, a server that has them, a run that scores a configuration.

Deterministic: the same request to the same fault gets the same answer. See docs/chaos.md.
"""
