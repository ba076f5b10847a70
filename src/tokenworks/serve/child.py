"""One supervised process: started, listened to, started again when it dies, stopped when asked.

Knows signals, exit codes and back-off; does not know what the process is for.
"""

import asyncio
import contextlib
import logging
import logging.handlers
import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from tokenworks.serve.terminal import Terminal, read_log_line
from tokenworks.worker.backoff import Backoff
from tokenworks.worker.engines.process import die_with_parent

CANNOT_START = 2
"""The exit code by which a process says that starting it again will not help."""
LAST_WAIT = 5.0
LOG_BYTES = 10_000_000
LOG_FILES = 3
KEPT_LINES = 20
LONGEST_LINE = 1 << 16


class CannotStart(Exception):
    """The process ended at its first start and says that another try is useless; the message is its own."""


def describe(returncode: int) -> str:
    """How a process ended, for people: "killed by SIGSEGV (Segmentation fault)", "exited with code 1"."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    try:
        number = signal.Signals(-returncode)
    except ValueError:
        return f"killed by signal {-returncode}"
    hint = "; out of memory?" if number is signal.SIGKILL else ""
    return f"killed by {number.name} ({signal.strsignal(number)}{hint})"


class Child:
    """`run` supervises until `stop`; both are called once."""

    def __init__(self, name: str, command: Sequence[str], *, logs: Path, terminal: Terminal) -> None:
        self.name = name
        self._command = list(command)
        self._terminal = terminal
        self._log = _log_file(logs / f"{name}.log")
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._tail: deque[str] = deque(maxlen=KEPT_LINES)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Keep the process alive until `stop`. CannotStart when its first start is hopeless."""
        backoff, starts = Backoff(), 0
        try:
            while not self._stopping.is_set():
                begun = time.monotonic()
                code, reason = await self._life_and_reason()
                starts += 1
                if self._stopping.is_set():
                    return
                if code == CANNOT_START and starts == 1:
                    raise CannotStart("\n".join(self._tail) or reason)
                pause = backoff.next(time.monotonic() - begun)
                self._terminal.warn(f"{self.name} {reason}; starts again in {pause:g} s")
                self._note(f"{reason}; starts again in {pause:g} s")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()
        finally:
            self._ended.set()
            self._log.close()

    async def stop(self, grace: float) -> None:
        """Ask the process to end; after `grace` seconds end it, and everything it started."""
        self._stopping.set()
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)  # asyncio's send_signal would reap it and lose its exit code
        try:
            async with asyncio.timeout(grace):
                await self._ended.wait()
        except TimeoutError:
            self._terminal.warn(f"{self.name} did not stop within {grace:g} s and is killed")
            self.kill()
            with contextlib.suppress(TimeoutError):  # not even SIGKILL ends a process that hangs in the kernel
                async with asyncio.timeout(LAST_WAIT):
                    await self._ended.wait()

    def kill(self) -> None:
        """At once, with everything it started."""
        self._stopping.set()
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def _life_and_reason(self) -> tuple[int | None, str]:
        """The exit code of one life and how it ended; None when the machine did not let it begin."""
        try:
            code = await self._live()
        except OSError as error:  # no memory, no more processes or files: may pass
            return None, f"cannot be started ({error.strerror})"
        last_words = f": {read_log_line(self._tail[-1])[1]}" if code > 0 and self._tail else ""
        return code, describe(code) + last_words

    async def _live(self) -> int:
        """One life of the process, from start to end: its exit code."""
        self._tail.clear()
        # A pipe of our own: asyncio's would hold back the news of its death until its last descendant closed it.
        hearing, speaking = os.pipe()
        listening = asyncio.create_task(self._listen(hearing))
        try:
            self._process = process = await self._start(speaking)
        finally:
            os.close(speaking)
        self._note(f"started as pid {process.pid}")
        if self._stopping.is_set():
            self.kill()
        try:
            return await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started must not outlive it and hold its sockets
            self._process = None
            await asyncio.wait([listening], timeout=1)
            listening.cancel()

    async def _start(self, output: int) -> asyncio.subprocess.Process:
        supervisor = os.getpid()
        return await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C at the terminal reaches the supervisor only, which stops in order
            preexec_fn=lambda: die_with_parent(supervisor),
        )

    async def _listen(self, pipe: int) -> None:
        output, rest = asyncio.StreamReader(), b""
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(output), os.fdopen(pipe, "rb", buffering=0)
        )
        try:
            while chunk := await output.read(LONGEST_LINE):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > LONGEST_LINE:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._heard(line)
            self._heard(rest)
        finally:
            transport.close()

    def _heard(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip()
        if line:
            self._tail.append(line)
            self._write(line)
            self._terminal.child(self.name, line)

    def _note(self, text: str) -> None:
        self._write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} [serve] {self.name} {text}")

    def _write(self, line: str) -> None:
        self._log.handle(logging.makeLogRecord({"msg": line}))


def _log_file(path: Path) -> logging.Handler:
    """Bounded on disk; a full disk costs the log, not the service."""
    file = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
    file.handleError = lambda record: None  # type: ignore[method-assign]
    return file
