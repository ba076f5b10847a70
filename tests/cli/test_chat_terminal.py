"""`tokenworks chat` in a terminal: what a person sees while an answer comes, commands, Ctrl-C and the end."""

import codecs
import contextlib
import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TOKENWORKS = str(Path(sys.executable).with_name("tokenworks"))
PATIENCE = 60.0
PROMPT = "› "


class Person:
    """Types into a command that runs in a pseudo-terminal, and reads its screen."""

    def __init__(self, *words: str, **environment: str) -> None:
        self.screen = ""
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            # A test runner's worker ignores Ctrl-C, and a child inherits that; a person's shell does not.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execve(TOKENWORKS, [TOKENWORKS, *words], {**os.environ, "TERM": "xterm", **environment})

    def types(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def sees(self, text: str) -> str:
        """Read until `text` is there: all that came up to its end. What follows is left for the next look."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.screen:
            assert time.monotonic() < deadline, f"no {text!r} on the screen: {self.screen!r}"
            assert self._read(1.0) is not None, f"ended without {text!r}: {self.screen!r}"
        seen, _, rest = self.screen.partition(text)
        self.screen = rest
        return seen + text

    def leaves(self, *, typing: str = "") -> int:
        """The exit code, after reading to the end. `typing` is typed again after a silence: between its
        prompt and its wait for a key the interpreter does not hear a Ctrl-C."""
        deadline = time.monotonic() + PATIENCE
        read: str | None = ""
        while read is not None:
            assert time.monotonic() < deadline, f"does not end: {self.screen!r}"
            if typing and not read:
                self.types(typing)
            read = self._read(5.0)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        os.close(self._terminal)
        with contextlib.suppress(OSError):
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)

    def _read(self, patience: float) -> str | None:
        """Empty when nothing came, None at the end. A character or a colour may come in pieces."""
        if not select.select([self._terminal], [], [], patience)[0]:
            return ""
        try:
            raw = os.read(self._terminal, 65536)
        except OSError:  # Linux says EIO when the other end is closed
            return None
        self.screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\x01\x02\r]", "", self.screen + self._decode(raw))
        return "read"


@pytest.fixture
def person() -> Iterator[Callable[..., Person]]:
    people: list[Person] = []

    def start(*words: str, **environment: str) -> Person:
        people.append(Person(*words, **environment))
        return people[-1]

    yield start
    for each in people:
        each.close()


@pytest.fixture
def at(echo_server: Any) -> dict[str, str]:
    return {"TOKENWORKS_URL": echo_server.url, "TOKENWORKS_DATA_DIR": str(echo_server.data_dir)}


def test_a_conversation(person: Callable[..., Person], at: dict[str, str]) -> None:
    someone = person("chat", **at)
    assert "echo" in someone.sees("/exit (or Ctrl-D) leaves.")
    someone.sees(PROMPT)
    someone.types("one two three\n")
    someone.sees("one two three\n")  # the terminal's own echo of what was typed
    answer = someone.sees(PROMPT)
    assert answer.startswith("one two three\n")
    assert re.search(r"3 tokens · (\d+ tok/s · )?first after \d+\.\d\d s", answer)
    someone.types("/exit\n")
    assert someone.leaves() == 0


def test_commands_within_a_conversation(person: Callable[..., Person], at: dict[str, str]) -> None:
    someone = person("chat", "--model", "echo", **at)
    for command, reply in (
        ("/system Be brief.", "Instructions are set."),
        ("/system", "Instructions are removed."),
        ("/reset", "The conversation is forgotten."),
        ("/what", "/system TEXT sets the instructions"),
    ):
        someone.sees(PROMPT)
        someone.types(f"{command}\n")
        someone.sees(reply)
    someone.sees(PROMPT)
    someone.types("\x04")
    assert someone.leaves() == 0


def test_ctrl_c_ends_the_answer_and_then_the_program(
    person: Callable[..., Person], serve: Callable[..., Any], tmp_path: Path
) -> None:
    config = tmp_path / "slow.toml"
    config.write_text('[models.slow]\nengine = "echo"\noptions = {rate = 10}\n')
    with serve(tmp_path / "data", "--config", str(config)) as server:
        someone = person("chat", TOKENWORKS_URL=server.url, TOKENWORKS_DATA_DIR=str(server.data_dir))
        someone.sees(PROMPT)
        words = " ".join(f"w{number}" for number in range(300))
        someone.types(f"{words}\n")
        someone.sees("w299")
        someone.sees("w2 ")  # of the answer, as it comes
        someone.types("\x03")
        assert "w299" not in someone.sees("interrupted; this turn is forgotten")
        someone.sees(PROMPT)
        someone.types("fine\n")
        someone.sees("1 tokens")
        someone.sees(PROMPT)
        assert someone.leaves(typing="\x03") == 0


def test_an_error_does_not_end_the_conversation(person: Callable[..., Person], at: dict[str, str]) -> None:
    someone = person("chat", "--model", "no-such-model", **at)
    someone.sees(PROMPT)
    someone.types("hello\n")
    someone.sees("error: ")
    someone.sees(PROMPT)
    someone.types("/exit\n")
    assert someone.leaves() == 0


def test_ctrl_c_ends_a_single_answer_cleanly(
    person: Callable[..., Person], serve: Callable[..., Any], tmp_path: Path
) -> None:
    config = tmp_path / "slow.toml"
    config.write_text('[models.slow]\nengine = "echo"\noptions = {rate = 10}\n')
    with serve(tmp_path / "data", "--config", str(config)) as server:
        words = " ".join(f"w{number}" for number in range(300))
        someone = person("chat", words, TOKENWORKS_URL=server.url, TOKENWORKS_DATA_DIR=str(server.data_dir))
        someone.sees("w1 ")
        someone.types("\x03")
        assert someone.leaves() == 130
        assert "Traceback" not in someone.screen
