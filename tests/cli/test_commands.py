"""Commands of the command line against a real server: what people see, what scripts get, exit codes."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    return text


def usage_with(run: Run, at: dict[str, str], *options: str, attempts: int) -> Any:
    """Usage reaches control a moment after its answer."""
    for _ in range(200):
        found = json.loads(run("usage", "--json", *options, **at).stdout)
        if found["totals"]["attempts"] >= attempts:
            return found
        time.sleep(0.1)
    raise AssertionError(found)


@pytest.mark.parametrize(
    "words",
    [
        [],
        *(["serve"], ["chat"], ["status"], ["usage"], ["models"], ["keys"]),
        *(["models", "list"], ["models", "pull"], ["models", "optimize"], ["models", "rm"]),
        *(["keys", "create"], ["keys", "list"], ["keys", "revoke"]),
    ],
    ids=" ".join,
)
def test_every_help_has_an_example(run: Run, words: list[str]) -> None:
    shown = run(*words, "--help").stdout
    assert "Usage: " in shown
    group = words in ([], ["models"], ["keys"])
    assert group or re.search(r"Examples?: .*tokenworks " + " ".join(words), shown)


@pytest.mark.parametrize("plane", ["gateway", "control", "worker"])
def test_planes_take_their_own_options(run: Run, plane: str) -> None:
    assert f"usage: tokenworks {plane}" in run(plane, "--help").stdout
    assert run(plane, "--no-such-option", code=2).stderr


def test_a_plane_starts_without_what_is_for_people(run: Run) -> None:
    seen = run("gateway", "--help", PYTHONVERBOSE="1").stderr
    assert "import 'tokenworks.gateway.settings'" in seen
    assert "import 'typer'" not in seen
    assert "import 'tokenworks.cli.app'" not in seen


def test_an_unknown_command_gets_the_nearest_name(run: Run) -> None:
    assert "Did you mean 'chat'" in run("chta", code=2).stderr


def test_version(run: Run) -> None:
    assert re.fullmatch(r"tokenworks \d+\.\d+\.\d+\S*\n", run("--version").stdout)


def test_keys_are_made_listed_used_and_revoked(run: Run, at: dict[str, str], echo_server: Any) -> None:
    made = json.loads(run("keys", "create", "ci", "--model", "echo", "--expires", "2099-01-31", "--json", **at).stdout)
    assert made["models"] == ["echo"]
    assert run("chat", "hello there", "--key", made["key"], **at).stdout == "hello there\n"

    listed = {key["id"]: key for key in json.loads(run("keys", "list", "--json", **at).stdout)}
    assert listed[made["id"]]["name"] == "ci"
    assert "key" not in listed[made["id"]]
    table = run("keys", "list", **at).stdout
    assert re.search(rf"^{made['id']} +ci +sk-tw-\.\.\.\S+ +echo +.* until 2099-01-31", table, re.MULTILINE)
    assert made["key"] not in table

    assert run("keys", "revoke", made["id"], **at).stdout == f"Key {made['id']} is revoked.\n"
    assert json.loads(run("keys", "revoke", made["id"], "--json", **at).stdout)["revoked_at"] is not None
    assert re.search(rf"^{made['id']} .* revoked", run("keys", "list", **at).stdout, re.MULTILINE)
    time.sleep(1.5)  # in force within a second
    refused = run("chat", "hello", "--key", made["key"], code=1, **at)
    assert "--key" in one_line(refused.stderr)


def test_a_new_key_is_shown_alone_on_its_line(run: Run, at: dict[str, str]) -> None:
    shown = run("keys", "create", "for people", **at).stdout.splitlines()
    assert re.fullmatch(r"sk-tw-[A-Za-z0-9_-]{43}", shown[0])
    assert "shown only now" in shown[1]


def test_an_api_key_in_the_environment_does_not_hide_the_admin_key(
    run: Run, at: dict[str, str], echo_server: Any
) -> None:
    assert run("keys", "list", TOKENWORKS_API_KEY=echo_server.api_key, **at).stdout
    elsewhere = {"TOKENWORKS_URL": echo_server.url, "TOKENWORKS_API_KEY": echo_server.api_key}
    assert "admin key" in one_line(run("keys", "list", code=1, **elsewhere).stderr)
    assert run("keys", "list", **elsewhere | {"TOKENWORKS_API_KEY": echo_server.admin_key}).stdout


def test_revoking_what_is_not_there_fails(run: Run, at: dict[str, str]) -> None:
    assert "key_nobody/has" in one_line(run("keys", "revoke", "key_nobody/has", code=1, **at).stderr)


def test_usage_is_listed_filtered_and_summed(run: Run, at: dict[str, str]) -> None:
    made = json.loads(run("keys", "create", "usage", "--json", **at).stdout)
    for text in ("a b c", "d e f g"):
        run("chat", text, "--key", made["key"], **at)
    only = ("--key-id", made["id"])
    found = usage_with(run, at, *only, attempts=2)
    assert [row["usage"]["output"] for row in found["data"]] == [4, 3]
    assert found["totals"]["usage"]["output"] == 7

    newest = json.loads(run("usage", *only, "--limit", "1", "--json", **at).stdout)
    assert [row["id"] for row in newest["data"]] == [found["data"][0]["id"]]
    table = run("usage", *only, "--limit", "1", "--since", "1h", **at).stdout
    assert "echo" in table
    assert "2 attempts, 1 shown" in table
    assert json.loads(run("usage", *only, "--until", "2020-01-01", "--json", **at).stdout)["totals"]["attempts"] == 0
    assert json.loads(run("usage", "--model", "other", "--json", **at).stdout)["data"] == []


def test_a_bad_time_is_refused(run: Run, at: dict[str, str]) -> None:
    assert "yesterday" in run("usage", "--since", "yesterday", code=2, **at).stderr


def test_status_shows_the_components(run: Run, at: dict[str, str], echo_server: Any) -> None:
    shown = run("status", **at).stdout
    assert shown.startswith(f"ready  {echo_server.url}\n")
    assert re.search(r"^model +ok +", shown, re.MULTILINE)
    assert re.search(r"^control +ok +", shown, re.MULTILINE)
    report = json.loads(run("status", "--json", **at).stdout)
    assert report["status"] == "ready"
    assert report["components"]["model"]["name"] == "echo"


def test_nothing_there_is_told_in_one_line_with_the_remedy(run: Run) -> None:
    for words in (["status"], ["chat", "hi", "--key", "k"], ["keys", "list", "--key", "sk-tw-admin-x"]):
        failed = run(*words, "--url", "http://127.0.0.1:9", code=1)
        assert "start it with `tokenworks serve`, or give its address with --url" in one_line(failed.stderr)
        assert failed.stdout == ""


def test_no_key_and_a_bad_address_are_usage_errors(run: Run, tmp_path: Path) -> None:
    assert "--data-dir" in one_line(run("keys", "list", code=2).stderr)
    assert "ftp://x" in one_line(run("status", "--url", "ftp://x", code=2).stderr)
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data" / "bootstrap.json").write_text("{}")
    assert "cannot read admin_key" in one_line(run("keys", "list", code=1).stderr)


def test_the_data_directory_here_is_the_default(run: Run, tmp_path: Path, echo_server: Any) -> None:
    (tmp_path / ".data").symlink_to(echo_server.data_dir)
    assert run("chat", "found it", "--url", f"{echo_server.url}/v1").stdout == "found it\n"


def test_chat_takes_one_message_from_a_pipe(run: Run, at: dict[str, str]) -> None:
    assert run("chat", "--model", "echo", stdin="what the pipe says\n", **at).stdout == "what the pipe says\n"
    answer = json.loads(run("chat", "--json", stdin="one two", **at).stdout)
    assert answer["content"] == "one two"
    assert answer["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 2
    assert answer["time_to_first_token"] >= 0
    assert "nothing came" in one_line(run("chat", stdin="", code=2, **at).stderr)


def test_chat_honours_its_limits_and_names_an_unknown_model(run: Run, at: dict[str, str]) -> None:
    answer = json.loads(run("chat", "one two three four", "--max-tokens", "2", "--json", **at).stdout)
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2
    assert "no-such" in one_line(run("chat", "hi", "--model", "no-such", code=1, **at).stderr)


def test_chat_with_a_real_model(run: Run, smollm2_server: Any) -> None:
    at = {"TOKENWORKS_URL": smollm2_server.url, "TOKENWORKS_API_KEY": smollm2_server.api_key}
    question = "What is the capital of France? Answer briefly."
    answer = json.loads(run("chat", question, "--temperature", "0", "--max-tokens", "24", "--json", **at).stdout)
    assert "Paris" in answer["content"]


def test_models_need_no_server(run: Run, tmp_path: Path) -> None:
    weights = tmp_path / "tiny.gguf"
    weights.write_bytes(b"GGUF" + bytes(1000))
    cache = ("--cache-dir", str(tmp_path / "cache"))
    models = {model["name"]: model for model in json.loads(run("models", "list", "--json", *cache).stdout)}
    default = models["smollm2-135m"]
    assert (default["licence"], default["context_length"], default["cached"]) == ("Apache-2.0", 8192, False)
    assert re.search(
        r"^smollm2-135m +writes +135M +8192 +98 MB +no +Apache-2.0", run("models", "list", *cache).stdout, re.M
    )

    pulled = json.loads(run("models", "pull", f"file:{weights}", "--json", *cache).stdout)
    assert Path(pulled["path"]).read_bytes() == weights.read_bytes()
    unknown = run("models", "optimize", f"file:{weights}", "--format", "Q3", *cache, code=2)
    assert "--format Q3" in unknown.stderr and "Q4_0 or Q8_0" in unknown.stderr
    assert "cannot be read as GGUF" in run("models", "optimize", f"file:{weights}", *cache, code=1).stderr
    assert (
        json.loads(run("models", "optimize", f"file:{weights}", "--undo", "--json", *cache).stdout)["freed_bytes"] == 0
    )
    missing = run("models", "pull", "smollm2-135", *cache, code=1)
    assert "Did you mean 'smollm2-135m'" in one_line(missing.stderr)
    assert "nothing-here" in one_line(run("models", "rm", "nothing-here", *cache, code=1).stderr)


def test_the_default_model_is_pulled_listed_and_removed(run: Run, tmp_path: Path) -> None:
    """From a copy of the suite's cache, so that nothing is downloaded twice."""
    shared = Path(os.environ.get("TOKENWORKS_CACHE_DIR") or REPOSITORY / ".cache")
    run("models", "pull", "smollm2-135m", "--cache-dir", str(shared))
    cache = tmp_path / "cache"
    subprocess.run(["cp", "--recursive", "--reflink=auto", shared, cache], check=True)
    listed = {m["name"]: m for m in json.loads(run("models", "list", "--json", "--cache-dir", str(cache)).stdout)}
    assert listed["smollm2-135m"]["cached"]
    assert Path(listed["smollm2-135m"]["path"]).is_relative_to(cache)
    assert "smollm2-135m is here: " in run("models", "pull", "smollm2-135m", "--cache-dir", str(cache)).stdout
    assert "98 MB are free again" in run("models", "rm", "smollm2-135m", "--cache-dir", str(cache)).stdout
    listed = {m["name"]: m for m in json.loads(run("models", "list", "--json", "--cache-dir", str(cache)).stdout)}
    assert not listed["smollm2-135m"]["cached"]


def test_output_that_is_cut_short_by_its_reader_is_no_traceback(tmp_path: Path) -> None:
    command = f"{Path(sys.executable).with_name('tokenworks')} models list --json --cache-dir {tmp_path} | head -c 10"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in ended.stderr
