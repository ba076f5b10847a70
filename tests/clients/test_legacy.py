"""Clients that need an older huggingface_hub than ours: each is a script that runs in an environment of its own."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = sorted((Path(__file__).parent / "legacy").glob("*.py"))
PYTHON = Path(__file__).parents[2] / ".venv-legacy" / "bin" / "python"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_legacy_client(echo_server: Any, script: Path) -> None:
    assert PYTHON.exists(), "the old environment is missing; `make setup` builds it"
    command = [str(PYTHON), str(script), echo_server.url, echo_server.api_key]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
