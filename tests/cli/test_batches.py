"""`tokenworks files` and `tokenworks batches` against a real server; the commands of docs/batches.md as they are."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

TOKENWORKS = Path(sys.executable).with_name("tokenworks")
PAGE = (Path(__file__).parents[2] / "docs" / "batches.md").read_text()
REQUESTS = PAGE.partition("```json\n")[2].partition("```")[0].replace("smollm2-135m", "echo")
EXAMPLES = dict(re.findall(r"## With (.+?)\n.*?```sh\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def shell(tmp_path: Path, echo_server: Any) -> Any:
    """`shell(command, NAME="value")` -> what it printed, in a directory with requests.jsonl."""
    (tmp_path / "requests.jsonl").write_text(REQUESTS)
    environment = {
        "PATH": f"{TOKENWORKS.parent}:{os.environ['PATH']}",
        "TOKENWORKS_URL": echo_server.url,
        "TOKENWORKS_API_KEY": echo_server.api_key,
        "URL": echo_server.url,
        "KEY": echo_server.api_key,
        "NO_COLOR": "1",
    }

    def call(command: str, code: int = 0, **more: str) -> str:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment | more, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if not code else done.stderr

    return call


def completed(shell: Any, batch: str) -> Any:
    for _ in range(600):
        found = json.loads(shell(f"tokenworks batches get {batch} --json"))
        if found["status"] == "completed":
            return found
        time.sleep(0.1)
    raise AssertionError(found)


def test_the_pages_commands(shell: Any, tmp_path: Path) -> None:
    create, listed, get, files, download = EXAMPLES["the command line"].strip().splitlines()
    batch = shell(create).split()[0]
    assert batch.startswith("batch_")
    output = completed(shell, batch)["output_file_id"]
    assert batch in shell(listed)
    assert f"tokenworks files download {output}" in shell(get, BATCH=batch)
    assert output in shell(files)
    shell(download, OUTPUT=output)
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    said = {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in lines}
    assert said == {"first": "Say hello", "second": "Say goodbye"}
    assert shell("tokenworks files download $OUTPUT", OUTPUT=output) == (tmp_path / "results.jsonl").read_text()


def test_the_pages_curl_lines(shell: Any) -> None:
    upload, create, retrieve = EXAMPLES["curl"].strip().splitlines()
    file = json.loads(shell(upload))
    assert (file["filename"], file["purpose"]) == ("requests.jsonl", "batch")
    batch = json.loads(shell(create, FILE=file["id"]))
    assert batch["status"] == "validating"
    assert json.loads(shell(retrieve, BATCH=batch["id"]))["id"] == batch["id"]


def test_files(shell: Any, tmp_path: Path) -> None:
    (tmp_path / 'odd "name".txt').write_bytes(bytes(range(256)) * 10)
    made = json.loads(shell("""tokenworks files upload 'odd "name".txt' --purpose user_data --json"""))
    assert (made["filename"], made["bytes"]) == ('odd "name".txt', 2560)
    assert made["id"] in [file["id"] for file in json.loads(shell("tokenworks files list --purpose user_data --json"))]
    shell(f"tokenworks files download {made['id']} -o back")
    assert (tmp_path / "back").read_bytes() == bytes(range(256)) * 10
    assert "is deleted" in shell(f"tokenworks files delete {made['id']}")
    assert "There is no file" in shell(f"tokenworks files download {made['id']}", code=1)
    assert "purpose" in shell("tokenworks files upload requests.jsonl --purpose nonsense", code=1)


def test_a_batch_that_is_wrong_and_one_that_is_cancelled(shell: Any, tmp_path: Path) -> None:
    (tmp_path / "wrong.jsonl").write_text(REQUESTS + "nonsense\n")
    batch = shell("tokenworks batches create wrong.jsonl").split()[0]
    for _ in range(600):
        shown = shell(f"tokenworks batches get {batch}")
        if "failed" in shown:
            break
        time.sleep(0.1)
    assert "line 3: This line is not parseable as valid JSON" in shown
    assert "cannot be cancelled" in shell(f"tokenworks batches cancel {batch}", code=1)
    assert "There is no file" in shell("tokenworks batches create file-none", code=1)
