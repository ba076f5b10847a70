"""What the supervisor says to people: one line per event, on stderr; results on stdout.

A terminal that is paused or gone must never stop the supervisor (children would block on their full log
pipes), so a thread writes and lines are dropped while it cannot.
"""

import contextlib
import json
import os
import queue
import re
import sys
import threading
from enum import IntEnum
from typing import TextIO

RED, YELLOW, DIM = "31", "33", "2"
WAITING_LINES = 2000


class Severity(IntEnum):
    OTHER = 0
    WARNING = 1
    ERROR = 2


COLOURS = {Severity.WARNING: YELLOW, Severity.ERROR: RED}
_SEVERITIES = {"warn": Severity.WARNING, "warning": Severity.WARNING} | dict.fromkeys(
    ("error", "critical", "fatal", "exception", "traceback"), Severity.ERROR
)
_PLAIN_LEVEL = re.compile(r"\b(WARNING|WARN|ERROR|CRITICAL|FATAL)\b|^(Traceback)\b")


def read_log_line(line: str) -> tuple[Severity, str]:
    """How much a child's log line matters, and how to show it: our JSON lines become a sentence and its facts."""
    try:
        record = json.loads(line) if line.startswith("{") else None
    except ValueError:
        record = None
    if not isinstance(record, dict) or "event" not in record:
        found = _PLAIN_LEVEL.search(line)
        level = found[1] or found[2] if found else ""
        return _SEVERITIES.get(level.lower(), Severity.OTHER), line
    level, event = str(record.pop("level", "")), record.pop("event")
    trace = record.pop("exception", None)
    for said_already in ("timestamp", "logger"):
        record.pop(said_already, None)
    facts = "".join(f"  {name}={value}" for name, value in record.items())
    return _SEVERITIES.get(level, Severity.OTHER), f"{event}{facts}" + (f"\n{trace}" if trace else "")


class Terminal:
    """`verbose` shows all that children say; otherwise errors, and warnings while `settled`: when planes start or
    stop, that one misses another is no news."""

    def __init__(self) -> None:
        self.verbose = False
        self.settled = False
        self._colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        self._queue: queue.Queue[tuple[TextIO, str] | None] = queue.Queue(WAITING_LINES)
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def note(self, text: str) -> None:
        self._say(self._paint(text, DIM))

    def warn(self, text: str) -> None:
        self._say(self._paint(text, YELLOW))

    def error(self, text: str) -> None:
        self._say(self._paint(f"error: {text}", RED))

    def out(self, text: str) -> None:
        """A result, on stdout as it is."""
        self._put(sys.stdout, text)

    def child(self, name: str, line: str) -> None:
        """A log line of a child."""
        level, text = read_log_line(line)
        if self.verbose or level is Severity.ERROR or (level and self.settled):
            colour = COLOURS.get(level)
            self._say(f"{self._paint(f'{name} |', DIM)} {self._paint(text, colour) if colour else text}")

    def close(self, timeout: float = 2.0) -> None:
        """Write what is waiting, unless the terminal takes longer than `timeout`."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=timeout)
        self._thread.join(timeout)

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text

    def _say(self, text: str) -> None:
        self._put(sys.stderr, text)

    def _put(self, stream: TextIO, text: str) -> None:
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait((stream, text))

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            stream, text = item
            with contextlib.suppress(OSError, ValueError):  # the terminal is gone; serving goes on
                stream.write(text + "\n")
                stream.flush()
