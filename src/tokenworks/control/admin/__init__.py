"""The admin API: one file per noun. Callers have shown an admin key before they come here (guard.py)."""
