"""docs/caching.md from the command line on a whole server: a project opts in, sees it, opts out again."""

import json
import re
import shlex
import time
from pathlib import Path
from typing import Any

import httpx2

PAGE = (Path(__file__).parents[2] / "docs" / "caching.md").read_text()
SET, SHOW, CLEAR = (shlex.split(line) for line in re.findall(r"^\$ tokenworks (.+)$", PAGE, re.MULTILINE))


def test_a_project_opts_in_and_out(echo_server: Any, at: dict[str, str], run: Any, wait_until: Any) -> None:
    made = json.loads(run("organizations", "create", f"Caching-{time.monotonic_ns()}", "--json", **at).stdout)
    at = at | {"TOKENWORKS_API_KEY": made["admin_key"]}
    secret = json.loads(run("keys", "create", "cached", "--json", **at).stdout)["key"]

    def told() -> str | None:
        body = {"model": "echo", "messages": [{"role": "user", "content": "again and again"}]}
        headers = {"Authorization": f"Bearer {secret}"}
        answer = httpx2.post(f"{echo_server.url}/v1/chat/completions", json=body, headers=headers, timeout=30)
        assert answer.status_code == 200
        found: str | None = answer.headers.get("x-tokenworks-cache")
        return found

    def do(words: list[str]) -> str:
        return str(run(*[made["project_id"] if word == "PROJECT" else word for word in words], **at).stdout)

    assert told() is None
    assert "600 s" in do(SET)
    wait_until(lambda: told() == "hit", "the wish to be in force")
    assert "0.95" in do(SHOW)
    do(CLEAR)
    wait_until(lambda: told() is None, "the wish to be gone")
