"""Ids of requests: eight hexadecimal digits for the second they were made in, then sixteen that tell them apart.

They sort by time, so a table keyed by them grows at one end and can be cut by month.
"""

import os
import time


def new() -> str:
    return first(int(time.time())) + os.urandom(8).hex()


def first(second: int) -> str:
    """What every id of this Unix second begins with; no id of a later one sorts before it."""
    return f"{min(max(second, 0), 0xFFFFFFFF):08x}"
