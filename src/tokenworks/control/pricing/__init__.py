"""The price book: what we charge and what we pay, by kind, condition, organization and date. See docs/billing.md."""
