"""Hooks that look at what is asked and at what is answered. See docs/guardrails.md."""
