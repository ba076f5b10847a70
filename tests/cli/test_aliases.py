"""docs/virtual-models.md from the command line on a whole server: every command of the page, and what comes of it."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tokenworks.cli import app
from tokenworks.cli.aliases_toml import table_of, text_of
from tokenworks.config import parse

TOKENWORKS = Path(sys.executable).with_name("tokenworks")
PAGE = (Path(__file__).parents[2] / "docs" / "virtual-models.md").read_text()
COMMANDS = [shlex.split(line) for line in re.findall(r"^\$ tokenworks (.+)$", PAGE, re.MULTILINE)]
TABLE = PAGE.partition("```toml\n")[2].partition("```")[0]
Run = Callable[..., Any]
CHAT: Any = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def run(at: dict[str, str], tmp_path: Path) -> Run:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOKENWORKS_")}

    def call(*words: str, code: int = 0, stdin: str = "") -> Any:
        ended = subprocess.run(
            [TOKENWORKS, *words], env=kept | at | {"COLUMNS": "200"}, input=stdin, capture_output=True, text=True,
            timeout=120, cwd=tmp_path,
        )  # fmt: skip
        assert ended.returncode == code, ended.stdout + ended.stderr
        if code:
            return ended.stderr
        return json.loads(ended.stdout) if "--json" in words else ended.stdout

    return call


@pytest.fixture
def client(echo_server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{echo_server.url}/v1", api_key=echo_server.api_key, max_retries=0) as client:
        yield client


def put(server: Any, name: str, definition: dict[str, Any]) -> None:
    path, body = f"/admin/v1/aliases/{name}", {"definition": definition}
    status, made = server.call("POST", path, body, key=server.admin_key)
    assert status == 200, made


def remove_all(server: Any, *names: str) -> None:
    for name in names:
        assert server.call("DELETE", f"/admin/v1/aliases/{name}", key=server.admin_key)[0] == 200


def rows(server: Any, alias: str, shadow: str) -> list[dict[str, Any]]:
    path = f"/admin/v1/usage?alias={alias}&shadow={shadow}"
    found: list[dict[str, Any]] = server.call("GET", path, key=server.admin_key)[1]["data"]
    return found


def eventually(probe: Callable[[], Any]) -> Any:
    ends = time.monotonic() + 15
    while not (found := probe()):
        assert time.monotonic() < ends, "it does not come"
        time.sleep(0.05)
    return found


def test_the_commands_of_the_page(run: Run, echo_server: Any, client: openai.OpenAI) -> None:
    [echo] = echo_server.models
    for name in ("fast", "smart", "new"):  # the page's models
        put(echo_server, name, {"to": echo})

    def version() -> tuple[str, str]:
        answer = client.chat.completions.with_raw_response.create(**CHAT)
        assert answer.parse().model == answer.headers["x-tokenworks-model"]
        return answer.headers.get("x-tokenworks-alias-version", ""), answer.headers["x-tokenworks-alias"]

    first, tried, grown, history, back, show, listed, usage, remove = COMMANDS
    assert "# version 1," in run(*first)
    eventually(lambda: "chat" in [model.id for model in client.models.list()])
    assert version() == ("1", "chat")
    eventually(lambda: rows(echo_server, "chat", "false"))
    trial = run(*tried)
    assert "the proposal beside version 1" in trial
    assert "THE LAST 1 " in trial
    assert 'canary = {to = "new", percent = 10}' in run(*grown)
    eventually(lambda: version() == ("2", "chat"))
    assert "first tenth" in run(*history)
    assert "back to version 1" in run(*back)
    eventually(lambda: version() == ("3", "chat"))
    written = run(*show)
    assert "[aliases.chat]" in written
    assert "version 3" in run("aliases", "set", "chat", "-", stdin=written), "what is in force is no new version"
    assert re.search(r"^chat +3 ", run(*listed), re.MULTILINE)
    assert re.search(rf"chat@[12] {echo} ", run(*usage))
    assert "`tokenworks aliases rollback chat 3` brings it back" in run(*remove)
    eventually(lambda: "chat" not in [model.id for model in client.models.list()])
    assert "There is no alias 'chat'" in run("aliases", "show", "chat", code=1)
    remove_all(echo_server, "fast", "smart", "new")


def test_a_copy_is_a_row_of_the_operators(echo_server: Any, client: openai.OpenAI) -> None:
    [echo] = echo_server.models
    put(echo_server, "candidate", {"to": echo})
    put(echo_server, "copied", {"to": echo, "shadow": {"to": "candidate", "percent": 100}})
    eventually(lambda: "copied" in [model.id for model in client.models.list()])
    answer = client.chat.completions.with_raw_response.create(**{**CHAT, "model": "copied"})
    request_id = answer.headers["x-request-id"]
    [copy] = eventually(lambda: rows(echo_server, "copied", "true"))
    assert copy["request_id"] == f"{request_id}.shadow"
    assert (copy["organization_id"], copy["model"], copy["alias"], copy["charge"]) == ("operator", echo, "copied", 0)
    receipts = f"{echo_server.url}/v1/receipts/{request_id}"
    headers = {"Authorization": f"Bearer {echo_server.api_key}"}
    receipt = eventually(lambda: (got := httpx2.get(receipts, headers=headers)).status_code == 200 and got.json())
    assert (receipt["model"], receipt["alias"], receipt["alias_version"]) == (echo, "copied", 1)
    assert len(receipt["attempts"]) == 1, "the copy is none of the caller's business"
    assert [each["shadow"] for each in rows(echo_server, "copied", "false")] == [False]
    remove_all(echo_server, "copied", "candidate")


@pytest.mark.parametrize(
    "words, stdin, said",
    [
        (("set", "nothing"), "", "what is it to be? Give --to MODEL, or a file"),
        (("set", "x", "--canary", "new=much"), "", "'much' is no percentage"),
        (("set", "x", "--to", "a=1", "--to", "b"), "", "--to b: write NAME=VALUE"),
        (("set", "x", "--to", "nobody"), "", "neither a model nor an alias"),
        (("set", "x", "-"), "to = ", "neither TOML nor JSON"),
        (("set", "x", "-", "--to", "m"), "", "either a file or options"),
        (("set", "x", "-"), '{"to": "a", "rules": [{"when": 1}]}', "rules[0] has no 'to'"),
        (("history", "nobody"), "", "There is no alias 'nobody'"),
        (("try", "nobody"), "", "There is no alias 'nobody'"),
    ],
)
def test_what_cannot_be_meant_is_said(
    words: tuple[str, ...], stdin: str, said: str, at: dict[str, str], monkeypatch: Any, capsys: Any
) -> None:
    for name, value in at.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    with pytest.raises(SystemExit) as ended:
        app.run(["aliases", *words])
    assert ended.value.code in (1, 2)
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_pages_example_is_read_and_written_as_it_was() -> None:
    def read(text: str) -> Any:
        return parse(text, file="t.toml", protocols=(), engines=None).aliases["chat"].definition

    definition = read(TABLE)
    assert [rule["name"] for rule in definition["rules"]] == ["gold", "long"]
    assert read(text_of("chat", definition)) == definition
    odd = {
        "to": {"org/model": 1, 'qu"ote': 2},
        "rules": [{"name": "ü", "when": {"metadata": {"a b": ["x\\y"]}}, "to": "m"}],
    }
    assert parse(text_of("odd", odd), file="t", protocols=(), engines=None).aliases["odd"].definition == odd
    assert table_of({"aliases": {"chat": {"to": "m"}}}, "chat") == table_of({"to": "m"}, "chat") == {"to": "m"}
