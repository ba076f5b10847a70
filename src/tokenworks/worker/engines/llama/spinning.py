"""Whether llama.cpp's threads spin or sleep while they wait for each other, some hundred times in a forward pass.

Spinning makes a single caller's tokens come half as fast again, as long as the cores are ours. Once others run on
them it is several times slower: a thread burns its time waiting for one that is not even running. OpenMP decides by
counting: while more threads of its teams live than there are cores, all of them sleep. So on a crowded machine a second
team is kept alive that never does anything.
"""

import os
import threading
from pathlib import Path

from tokenworks.worker.engines.llama.binding import ffi, library

WINDOW = 0.25
"""Seconds of computing between two looks."""
CROWDED, QUIET = 0.15, 0.08
"""Shares of the time that this thread waited for a core: to begin sleeping, and to spin again. With a few busy
processes on the same two cores it waits for a third to two thirds of the time, whichever it does."""
SCHEDULE = Path("/proc/thread-self/schedstat")
"""Linux: nanoseconds run, nanoseconds waited for a core, slices."""


class Spinning:
    """Made and used in the thread that computes, with so many threads, on so many cores. Does nothing where the kernel
    does not tell how long it waits, or llama.cpp was built without OpenMP."""

    def __init__(self, threads: int, cores: int, schedule: Path = SCHEDULE) -> None:
        self._team = _Team(cores - threads + 2)
        self._schedule = -1
        if 1 < threads <= cores and hasattr(library(), "GOMP_parallel") and schedule.exists():
            self._schedule = os.open(schedule, os.O_RDONLY)
        self._seconds = 0.0
        self._waited = self._read()

    @property
    def sleeps(self) -> bool:
        return self._team.lives

    def add(self, seconds: float) -> None:
        """So long a forward pass took."""
        self._seconds += seconds
        if self._seconds < WINDOW or self._schedule < 0:
            return
        waited = self._read()
        share = (waited - self._waited) / self._seconds
        self._seconds, self._waited = 0.0, waited
        if share > CROWDED and not self._team.lives:
            self._team.start()
        elif share < QUIET and self._team.lives:
            self._team.stop()

    def close(self) -> None:
        self._team.stop()
        if self._schedule >= 0:
            os.close(self._schedule)
            self._schedule = -1

    def _read(self) -> float:
        return int(os.pread(self._schedule, 64, 0).split()[1]) / 1e9 if self._schedule >= 0 else 0.0


class _Team:
    """Threads of OpenMP that exist, and no more. They go with the thread that made them."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def lives(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        self._end.clear()
        self._thread = threading.Thread(target=self._live, name="engine-team", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._end.set()
            self._thread.join()
            self._thread = None

    def _live(self) -> None:
        lib = library()
        lib.GOMP_parallel(ffi.addressof(lib, "free"), ffi.NULL, self._threads, 0)
        self._end.wait()
