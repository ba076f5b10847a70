"""What reaches the terminal: lines of children by severity, and nothing that could block the supervisor."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.serve.terminal import Severity, Terminal, read_log_line


@pytest.mark.parametrize(
    ("line", "severity", "shown"),
    [
        ("listening", Severity.OTHER, "listening"),
        ("WARNING: low on memory", Severity.WARNING, "WARNING: low on memory"),
        ("Traceback (most recent call last):", Severity.ERROR, "Traceback (most recent call last):"),
        ("0 errors and no Warnings", Severity.OTHER, "0 errors and no Warnings"),
        ('{"event":"up","level":"info","timestamp":"t"}', Severity.OTHER, "up"),
        ('{"event":"low","level":"warning","logger":"x","left":3}', Severity.WARNING, "low  left=3"),
        ('{"event":"died","level":"error","exception":"Trace\\nBoom"}', Severity.ERROR, "died\nTrace\nBoom"),
        ('{"no": "event"}', Severity.OTHER, '{"no": "event"}'),
        ("{broken", Severity.OTHER, "{broken"),
    ],
)
def test_a_log_line_is_read(line: str, severity: Severity, shown: str) -> None:
    assert read_log_line(line) == (severity, shown)


@given(st.text() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(str))
def test_any_line_is_read(line: str) -> None:
    severity, shown = read_log_line(line)
    assert severity in Severity
    assert isinstance(shown, str)


def test_warnings_are_shown_once_all_is_settled_and_errors_always(capfd: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    for settled in (False, True):
        terminal.settled = settled
        terminal.child("gateway", f"WARNING {settled}")
        terminal.child("gateway", f"ERROR {settled}")
        terminal.child("gateway", f"info {settled}")
    terminal.close()
    told = capfd.readouterr().err.splitlines()
    assert told == ["gateway | ERROR False", "gateway | WARNING True", "gateway | ERROR True"]


def test_verbose_shows_everything(capfd: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    terminal.verbose = True
    terminal.child("control", "plain")
    terminal.close()
    assert capfd.readouterr().err == "control | plain\n"


def test_a_terminal_that_does_not_read_blocks_nobody() -> None:
    source = """
from tokenworks.serve.terminal import Terminal
terminal = Terminal()
for number in range(100_000):
    terminal.error("x" * 100)
terminal.close(timeout=0.2)
print("done", flush=True)
import os
os._exit(0)
"""
    hearing, speaking = os.pipe()  # nobody ever reads it
    try:
        ended = subprocess.run(
            [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=speaking, timeout=60, check=True
        )
    finally:
        os.close(hearing)
        os.close(speaking)
    assert ended.stdout == b"done\n"
