"""`tokenworks providers` and `tokenworks credentials`, as people run them."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


class Provider(BaseHTTPRequestHandler):
    """Answers by the key that it is told."""

    def do_POST(self) -> None:
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        self.rfile.read(int(self.headers["content-length"]))
        status, kind = {"good": (200, "text/event-stream"), "lost": (404, "application/json")}.get(
            key, (401, "application/json")
        )
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        chunk["choices"] = [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]  # type: ignore[assignment]
        body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n" if status == 200 else '{"error": {"message": "no"}}'
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def write(tmp_path: Path, url: str, keys: str) -> None:
    (tmp_path / "tokenworks.toml").write_text(
        f'[providers.mine]\nprotocol = "openai_chat"\nbase_url = "{url}"\napi_keys = {keys}\njurisdiction = "EU"\n'
        '[models.m]\ntargets = ["mine/model-1"]\nprice = {input = 1, output = 1}\n'
    )


def test_list_and_show(run: Run, tmp_path: Path) -> None:
    write(tmp_path, "http://127.0.0.1:9/v1", '["env:MINE_KEY"]')
    table = run("providers", "list", MINE_KEY="s3cret").stdout
    assert "bedrock" in table and "MINE_KEY set" in table and "s3cret" not in table
    (mine,) = [row for row in json.loads(run("providers", "list", "--json").stdout) if row["name"] == "mine"]
    assert (mine["key"], mine["jurisdiction"], mine["retention_seconds"]) == ("MINE_KEY not set", "EU", None)
    shown = run("providers", "show", "azure").stdout
    assert "resource" in shown and "unknown" in shown
    assert "there is no provider 'azur'" in run("providers", "show", "azur", code=2).stderr


def test_each_key_is_tried(run: Run, tmp_path: Path, url: str) -> None:
    write(tmp_path, url, '["good"]')
    assert "key 1 of 1: mine answered in" in run("providers", "test", "mine").stdout
    write(tmp_path, url, '["good", "env:BAD", "lost"]')
    said = run("providers", "test", "mine", BAD="b4d", code=1).stdout
    assert "key 1 of 3: mine answered in" in said
    assert "key 2 of 3: mine refused the credentials" in said
    assert "check api_key in [providers.mine]" in said
    assert "it does not know the model 'model-1'" in said
    assert "b4d" not in said
    results = json.loads(run("providers", "test", "mine", "--json", BAD="b4d", code=1).stdout)
    assert [result["fault"] for result in results] == [None, "credential", "unsuitable"]


def test_what_is_missing_is_told(run: Run, tmp_path: Path) -> None:
    assert "name one of its models with --model" in run("providers", "test", "vllm", code=2).stderr
    assert "GROQ_API_KEY is not set" in run("providers", "test", "groq", "--model", "m", code=2).stderr
    assert "bedrock needs region" in run("providers", "test", "bedrock", "--model", "m", code=2).stderr
    write(tmp_path, "http://127.0.0.1:9/v1", '["x"]')
    unreachable = run("providers", "test", "mine", code=1).stdout
    assert "nothing answers at http://127.0.0.1:9/v1: check base_url and region in [providers.mine]" in unreachable


def test_credentials(run: Run, at: dict[str, str], tmp_path: Path) -> None:
    """The shared server offers no provider: that is told; everything else of it is in the admin API's tests."""
    project = json.loads(run("projects", "list", "--json", **at).stdout)[0]["id"]
    words = ["credentials", "add", "openai", "--project", project]
    assert "There is no provider 'openai' here" in run(*words, stdin="sk-theirs\n", code=1, **at).stderr
    assert "no key was given" in run(*words, code=2, **at).stderr
    assert run("credentials", "list", "--project", project, **at).stdout.startswith("ID")
    gone = run("credentials", "remove", "pkey_x", "--project", project, code=1, **at)
    assert "There is no provider key 'pkey_x'" in gone.stderr
