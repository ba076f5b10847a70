"""Limits, budgets and webhook endpoints from the command line; docs/limits.md is run against a real server."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOKENWORKS = Path(sys.executable).with_name("tokenworks")
PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
COMMANDS = [shlex.split(line) for line in re.findall(r"^\$ tokenworks (.+)$", PAGE, re.MULTILINE)]
Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, echo_server: Any) -> Run:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOKENWORKS_")}
    at = {"TOKENWORKS_URL": echo_server.url, "TOKENWORKS_DATA_DIR": str(echo_server.data_dir), "COLUMNS": "200"}

    def call(*words: str, code: int = 0) -> Any:
        ended = subprocess.run(
            [TOKENWORKS, *words], cwd=tmp_path, env=kept | at, capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        if code:
            return ended.stderr
        return json.loads(ended.stdout) if "--json" in words else ended.stdout

    return call


def test_the_commands_of_the_page_work_in_their_order(run: Run, echo_server: Any) -> None:
    admin = json.loads((echo_server.data_dir / "bootstrap.json").read_text())["admin_key"]

    def listed(path: str) -> Any:
        return echo_server.call("GET", path, key=admin)[1]["data"]

    names = {
        "PROJECT": listed("/v1/organization/projects")[0]["id"],
        "ORGANIZATION": listed("/admin/v1/organizations")[0]["id"],
        "smollm2-135m": echo_server.models[0],
    }
    assert len(COMMANDS) >= 10
    shown: dict[str, str] = {}
    for words in COMMANDS:
        if "ENDPOINT" in words:
            names["ENDPOINT"] = listed("/admin/v1/webhooks")[0]["id"]
        shown[" ".join(words[:2])] = run(*[names.get(word, word) for word in words])
    assert "600" in shown["limits list"]
    assert "25" in shown["budgets list"]
    assert "alerts only" in shown["budgets list"]
    assert listed("/admin/v1/webhooks") == []
    for each in listed("/admin/v1/limits"):
        assert echo_server.call("DELETE", f"/admin/v1/limits/{each['id']}", key=admin)[0] == 200


def test_a_secret_is_alone_on_its_line_and_json_is_for_scripts(run: Run) -> None:
    secret = run("webhooks", "create", "https://example.com/a").splitlines()[0]
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/=]+", secret)
    (endpoint,) = run("webhooks", "list", "--json")
    run("webhooks", "remove", endpoint["id"])


def test_wrong_words_say_what_is_missing(run: Run) -> None:
    assert "--per" in run("limits", "set", "project", "p", "tokens", "5", code=2)
    assert "subject" in run("limits", "set", "project", "p", "tokens", "5", "--per", "day", code=1)
    assert "USD" in run("budgets", "set", "project", "p", "much", code=1)
    assert "public internet" in run("webhooks", "create", "http://127.0.0.1/", code=1)
