"""What is spent of budgets: told to gateways, and to whoever wants to know when a threshold is passed."""
