"""A child process that dies with its parent, whose last words are kept and whose death gets a reason.

Knows signals, pipes and exit codes; does not know what the child is for.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

KEPT_LINES = 50
SHOWN_LINES = 3
LONGEST_LINE = 4096
GRACE = 3.0
"""Seconds between asking and forcing."""
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """In the child, first thing: the kernel kills it when process `parent` is gone (Linux).

    Elsewhere the child watches its standard input, which ends with the parent: `Child` keeps the other end open.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


class Child:
    def __init__(self, process: asyncio.subprocess.Process, on_line: Callable[[str], None]) -> None:
        self._process = process
        self._on_line = on_line
        self._tail: deque[str] = deque(maxlen=KEPT_LINES)
        self._oom_kills = _oom_kills()
        self._listening = asyncio.create_task(self._listen())
        self._stopped = False

    @classmethod
    async def start(cls, command: Sequence[str], on_line: Callable[[str], None], *, told: bytes = b"") -> "Child":
        """`told` goes to its standard input, which stays open. OSError when the program cannot be started."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        if process.stdin is not None:
            process.stdin.write(told)
        return cls(process, on_line)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> str:
        """Waits for its end: the reason, with its last words."""
        code = await self._process.wait()
        await asyncio.wait([self._listening], timeout=1)  # the pipe ends with the last process that holds it
        reason = self._describe(code)
        words = " / ".join(list(self._tail)[-SHOWN_LINES:])
        return f"{reason}: {words}" if words else reason

    async def stop(self) -> None:
        """Ask; after a grace, force."""
        self._stopped = True
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(GRACE):
                await self._process.wait()
        except TimeoutError:
            await self.kill()
        await self._closed()

    async def kill(self) -> None:
        self._stopped = True
        self._signal(signal.SIGKILL)
        await self._process.wait()
        await self._closed()

    async def _closed(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        await asyncio.wait([self._listening], timeout=1)
        self._listening.cancel()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _describe(self, code: int) -> str:
        if code >= 0:
            return f"exited with code {code}"
        if code == -signal.SIGKILL and not self._stopped and _oom_kills() > self._oom_kills:
            return "out of memory (SIGKILL)"
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"

    async def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 -- asked for in `start`
        rest = b""
        while chunk := await self._process.stdout.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-LONGEST_LINE:]
            for line in lines:
                self._heard(line)
        self._heard(rest)

    def _heard(self, raw: bytes) -> None:
        if line := raw[:LONGEST_LINE].decode(errors="replace").strip():
            self._tail.append(line)
            self._on_line(line)


def _oom_kills() -> int:
    """How often the kernel killed for memory since the machine started; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
