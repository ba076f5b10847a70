"""Groq's dialect of chat completions, served only (https://console.groq.com/docs/api-reference)."""
