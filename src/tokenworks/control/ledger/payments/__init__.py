"""Money through a payment provider. `base.py` is what the ledger needs of one; a provider is one file."""
