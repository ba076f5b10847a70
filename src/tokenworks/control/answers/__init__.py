"""Stored responses and predictions: what gateways save, how it ends without them, and who is told."""
