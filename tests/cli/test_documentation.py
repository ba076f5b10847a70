"""docs/cli.md against the commands themselves."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TOKENWORKS = Path(sys.executable).with_name("tokenworks")
PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def shown_by(*words: str) -> str:
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [TOKENWORKS, *words, "--help"], env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def test_every_command_is_documented() -> None:
    commands = re.findall(r"^│ ([a-z][a-z-]*) ", shown_by(), re.MULTILINE)
    assert {"serve", "chat", "models", "worker"} <= set(commands)
    for command in commands:
        assert f"`tokenworks {command}" in PAGE or f"`{command}`" in PAGE


def test_every_option_of_serve_is_documented_with_its_variable() -> None:
    help_text = shown_by("serve")
    options = set(re.findall(r"^│ (--[a-z-]+)", help_text, re.MULTILINE)) - {"--help"}
    documented = dict(re.findall(r"^\| `(--[a-z-]+)` \| `(TOKENWORKS_[A-Z_]+)`", PAGE, re.MULTILINE))
    assert set(documented) == options
    assert set(documented.values()) == set(re.findall(r"env var: (TOKENWORKS_[A-Z_]+)", help_text))


EXAMPLES = sorted(set(re.findall(r"^(?:echo .* \| )?(tokenworks .+)$", PAGE, re.MULTILINE)))


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_use_options_that_exist(example: str) -> None:
    words = shlex.split(example)[1:]
    depth = 2 if words[0] in ("keys", "models", "aliases", "prices", "chaos") else 1
    help_text = shown_by(*words[:depth])
    assert f"Usage: tokenworks {' '.join(words[:depth])}" in help_text
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", help_text)
