"""The third contract of the planes: gateways lease lines of batches from control and hand their results back.

See docs/batches.md. `records.py` is what both sides read and write; nothing here does I/O.
"""
