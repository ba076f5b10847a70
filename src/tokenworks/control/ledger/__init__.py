"""Who owes whom: the double-entry ledger, invoices, receipts, payments, and reconciliation with providers' bills."""
