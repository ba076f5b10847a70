"""Fireworks' dialect of chat and text completions, served only (https://docs.fireworks.ai/api-reference)."""
