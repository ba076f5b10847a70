"""Commands as people run them, and the server that they find."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOKENWORKS = Path(sys.executable).with_name("tokenworks")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("keys", "list", code=0, stdin=None, NAME="value")` in an empty directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOKENWORKS_")}

    def call(*words: str, code: int = 0, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [TOKENWORKS, *words],
            cwd=tmp_path,
            env=kept | environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended

    return call


@pytest.fixture
def at(echo_server: Any) -> dict[str, str]:
    """The environment that points at the shared server."""
    return {"TOKENWORKS_URL": echo_server.url, "TOKENWORKS_DATA_DIR": str(echo_server.data_dir)}
