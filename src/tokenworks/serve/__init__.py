"""Supervisor of one machine: starts control, gateway and workers, watches them, and stops them in order.

It holds no port, no database and no tokens: each plane is a process of its own, and this one only keeps
them alive. `app.run` is the entry.
"""
