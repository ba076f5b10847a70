"""What an engine has to know of the machine it runs on."""

import os
from pathlib import Path


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(wanted: int | None) -> int:
    """All cores up to four; beyond that one is left to the processes around the engine."""
    most = cores()
    return wanted or (most if most <= 4 else most - 1)


def memory() -> int:
    """Bytes that this process may use: the machine's, or its control group's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total
