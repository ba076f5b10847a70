"""`tokenworks chaos run` as its user calls it: a private stack, real clients' requests, a verdict on each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOKENWORKS = Path(sys.executable).with_name("tokenworks")
CONFIG = """
[providers.first]
protocol = ["openai_chat", "openai_responses"]
base_url = "http://127.0.0.1:9/v1"
[providers.second]
protocol = "anthropic_messages"
base_url = "http://127.0.0.1:9/v1"
[models.assistant]
targets = ["first/x", "second/y"]
price = {input = 1, output = 1}
"""
FAULTS = ("ok", "rate-limited", "error-500-once", "cut", "garbled", "missing-terminator", "prefill-refused")
MORE = ("silence", "wrong-usage", "context-length", "content-filter", "bad-tls")


def run(config: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [TOKENWORKS, "chaos", "run", "--config", str(config), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_everything_is_green_by_the_default_policy(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(CONFIG)
    faults = [word for fault in FAULTS + MORE for word in ("--fault", fault)]
    done = run(tmp_path / "t.toml", "--json", *faults)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == len(FAULTS + MORE) * 2 * 3 * 2
    assert {row["verdict"] for row in rows} == {"answered", "rescued", "clean error"}
    for row in rows:
        rescuable = row["fallback"] and row["fault"] not in ("ok", "wrong-usage", "content-filter")
        assert not rescuable or row["verdict"] == "rescued", row
        assert ".first" not in row["why"], "the names of the private stack are nobody's business"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fault", "nope"), "there is no fault 'nope'; known: ok, rate-limited"),
        (("--model", "nope"), "there is no model 'nope'; known: assistant"),
        (("--config", "/nowhere.toml"), "cannot be read"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "t.toml").write_text(CONFIG)
    done = run(tmp_path / "t.toml", *words)
    assert done.returncode == 2
    assert said in done.stderr.replace("\n", " ")
