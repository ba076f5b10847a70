"""`python skewed.py FILE [gateway's options]`: a gateway whose wall clock is ahead by the seconds that FILE says.

What Python reads the wall clock with goes wrong together; the monotonic clock does not, as on a machine whose clock
is set.
"""

import mmap
import runpy
import struct
import sys
import time
from pathlib import Path

BYTES = struct.Struct("<q")


def set_ahead(file: Path, seconds: int) -> None:
    """In place: the gateway has the file mapped."""
    with file.open("r+b" if file.exists() else "w+b") as opened:
        opened.write(BYTES.pack(seconds * 10**9))


if __name__ == "__main__":
    with Path(sys.argv.pop(1)).open("rb") as file:
        ahead = mmap.mmap(file.fileno(), BYTES.size, access=mmap.ACCESS_READ)
    real = time.time_ns
    time.time_ns = lambda: real() + BYTES.unpack_from(ahead)[0]
    time.time = lambda: time.time_ns() / 1e9
    runpy.run_module("tokenworks.gateway", run_name="__main__", alter_sys=True)
