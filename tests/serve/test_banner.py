"""What is printed when the server answers."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tokenworks.serve.banner import as_json, as_text, base_url


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("gpu-1.example", "http://gpu-1.example:80"),
    ],
)
def test_the_url_is_one_to_connect_to(host: str, url: str) -> None:
    assert base_url(host, 80) == url


def test_the_printed_curl_line_works_when_pasted(echo_server: Any) -> None:
    text = as_text(echo_server.url, echo_server.data_dir / "bootstrap.json", ("echo",), 1.0, colour=False)
    command = text[text.index("curl ") : text.index("\n\n", text.index("curl "))]
    ended = subprocess.run(
        ["bash", "-c", f"{command} --silent --show-error"], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(ended.stdout)["choices"][0]["message"]["content"] == "Hello!"


def test_the_printed_chat_line_works_when_pasted(echo_server: Any) -> None:
    text = as_text(echo_server.url, echo_server.data_dir / "bootstrap.json", ("echo",), 1.0, colour=False)
    line = next(line for line in text.splitlines() if "tokenworks chat" in line)
    options = shlex.split(line[line.index("tokenworks chat") :])[2:]
    assert options == ["--url", echo_server.url, "--data-dir", str(echo_server.data_dir)]


def test_what_is_tried_is_what_the_first_model_that_writes_can_do() -> None:
    def shown(*models: str) -> str:
        does = {"e": "embeddings", "r": "rerank"}
        return as_text("http://h:1", Path("/data/bootstrap.json"), models, 1.0, colour=False, measures=does)

    assert "/v1/chat/completions" in shown("e", "w", "r")
    assert '{"model": "w", "messages"' in shown("e", "w", "r")
    assert "/v1/embeddings" in shown("e", "r")
    assert '{"model": "r", "query"' in shown("r")
    assert "tokenworks chat" in shown("e", "w")
    assert "tokenworks chat" not in shown("e")


def test_a_model_name_with_quotes_stays_one_argument() -> None:
    text = as_text("http://h:1", Path("/data/bootstrap.json"), ("it's",), 1.0, colour=False)
    words = shlex.split(text[text.index("curl ") :].split("\n\n")[0])
    assert json.loads(words[words.index("-d") + 1])["model"] == "it's"


def test_the_json_line_has_what_a_script_needs(tmp_path: Path) -> None:
    bootstrap = tmp_path / "bootstrap.json"
    bootstrap.write_text('{"api_key": "sk-tw-x", "admin_key": "sk-tw-admin-y"}')
    line = as_json("http://h:1", bootstrap, ("a", "b"))
    assert "\n" not in line
    assert json.loads(line) == {
        "base_url": "http://h:1/v1",
        "api_key": "sk-tw-x",
        "admin_key_file": str(bootstrap),
        "models": ["a", "b"],
        "pid": os.getpid(),
    }


def test_without_the_keys_it_says_where_to_look(tmp_path: Path) -> None:
    text = as_text("http://h:1", tmp_path / "bootstrap.json", ("a",), 1.0, colour=False)
    assert f'in {tmp_path}/bootstrap.json ("api_key")' in text
