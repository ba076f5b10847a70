"""docs/residency.md from the command line on a whole server: set, kept by a replica of ours, cleared."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

TOKENWORKS = Path(sys.executable).with_name("tokenworks")
PAGE = (Path(__file__).parents[2] / "docs" / "residency.md").read_text()
SET, SHOW, CLEAR = (shlex.split(line) for line in re.findall(r"^\$ tokenworks (.+)$", PAGE, re.MULTILINE))
Run = Callable[..., Any]


@pytest.fixture
def run(at: dict[str, str]) -> Run:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOKENWORKS_")}

    def call(*words: str, key: str = "", code: int = 0) -> Any:
        environment = kept | at | {"COLUMNS": "200"} | ({"TOKENWORKS_API_KEY": key} if key else {})
        ended = subprocess.run([TOKENWORKS, *words], env=environment, capture_output=True, text=True, timeout=120)
        assert ended.returncode == code, ended.stdout + ended.stderr
        if code:
            return ended.stderr
        return json.loads(ended.stdout) if "--json" in words else ended.stdout

    return call


def test_the_commands_of_the_page_hold_a_replica_to_the_policy(run: Run, echo_server: Any) -> None:
    made = run("organizations", "create", f"Residents-{time.monotonic_ns()}", "--json")
    owner, project = made["admin_key"], made["project_id"]
    key = run("keys", "create", "bound", "--json", key=owner)["key"]

    def ask(**members: Any) -> httpx2.Response:
        path = "/v1/responses" if "input" in members else "/v1/chat/completions"
        body = {"model": echo_server.models[0], **members}
        return httpx2.post(echo_server.url + path, headers={"Authorization": f"Bearer {key}"}, json=body, timeout=30)

    def proven(text: str | None) -> bool:
        """Whether the policy comes into force, or goes, soon."""
        ends = time.monotonic() + 10
        while (answer := ask(**chat)).headers.get("x-tokenworks-residency") != text and time.monotonic() < ends:
            time.sleep(0.05)
        assert answer.status_code == 200, answer.text
        return answer.headers.get("x-tokenworks-residency") == text

    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    assert proven(None)
    filled = [[project if word == "PROJECT" else word for word in words] for words in (SET, SHOW, CLEAR)]
    assert project in run(*filled[0], key=owner)
    shown = run(*filled[1], "--json", key=owner)
    assert (shown["regions"], shown["jurisdictions"], shown["retention_seconds"]) == (["eu-west"], ["EU"], 0)
    assert proven(f"{project}: region=eu-west, jurisdiction=EU, retention=0, trains=false")
    assert ask(input="Hi").json()["error"]["code"] == "residency_denied"
    assert ask(input="Hi", store=False).status_code == 200
    assert "the sink 'database' is in eu-west" in run("residency", "set", "--region", "us", key=owner, code=1)
    assert "no residency policy" in run(*filled[2], key=owner)
    assert proven(None)
    assert "no residency policy" in run("residency", "show", key=owner, code=1)
