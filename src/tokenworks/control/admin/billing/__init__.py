"""`/admin/v1/billing`: the ledger of each organization, its invoices and its payments. One file per noun."""
