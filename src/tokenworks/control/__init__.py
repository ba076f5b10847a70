"""The control plane: the truth about tenants, keys, models, replicas and usage. See docs/control.md.

It may be away for minutes without a caller noticing: gateways live from their snapshot and their journal.
"""
