"""A contract of the planes: answers that control keeps for a project, and gateways write and read.

Stored responses and chat completions, and predictions, are answers. See docs/stored-objects.md. `records.py` is what
both sides read and write; nothing here does I/O.
"""
