"""Control may come and go: the worker serves, keeps telling, and says so once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ECHO = ("--model", "org/echo", "--engine", "echo")


def test_control_is_away_and_comes_back(
    start: Callable[..., Any], control: Any, key: Path, wait_until: Callable[..., Any]
) -> None:
    control.stop()
    worker = start(*ECHO, control=control, key=key)
    worker.until_state("ready")
    assert worker.call("POST", "/worker/v1/tokenize", {"text": "still here"})[0] == 200
    wait_until(lambda: "control does not take heartbeats" in worker.log.read_text())
    control.start()
    control.until_beat(lambda beat: beat["state"] == "ready")
    (path,) = control.paths
    assert path.startswith("/internal/v1/replicas/org-echo-")
    wait_until(lambda: "control takes heartbeats again" in worker.log.read_text())
    assert worker.log.read_text().count("control does not take heartbeats") == 1


def test_it_tells_again_and_again(start: Callable[..., Any], control: Any, key: Path, wait_until: Any) -> None:
    start(*ECHO, "--region", "eu-west", "--retention", "0", "--trains", "no", control=control, key=key)
    wait_until(lambda: [beat["state"] for beat in control.beats].count("ready") >= 3)
    stated = {name: control.beats[-1].get(name) for name in ("region", "jurisdiction", "retention", "trains")}
    assert stated == {"region": "eu-west", "jurisdiction": None, "retention": 0, "trains": False}


def test_a_failing_start_is_told_and_tried_again(
    start: Callable[..., Any], control: Any, key: Path, home: Path, smollm2: Path, wait_until: Any
) -> None:
    weights = home / "model.gguf"
    arguments = ("--model", "m", "--engine", "llama_server", "--weights", f"file:{weights}", "--option", "slots=2")
    worker = start(*arguments, control=control, key=key)
    control.until_beat(lambda beat: beat["state"] == "failed" and str(weights) in beat["reason"])
    weights.write_bytes(b"no weights at all")
    control.until_beat(lambda beat: beat["state"] == "failed" and "is no GGUF file" in beat["reason"])
    weights.write_bytes(smollm2.read_bytes()[:4_000_000])
    control.until_beat(lambda beat: beat["state"] == "failed" and "exited with code" in beat["reason"])
    lines = [json.loads(line) for line in worker.log.read_text().splitlines()]
    assert any("is no GGUF file; this engine serves only those; next try in" in line["event"] for line in lines)
    whole = home / "whole.gguf"
    whole.symlink_to(smollm2)
    whole.rename(weights)
    worker.until_state("ready")


def test_wrong_settings_end_the_start_at_once(start: Callable[..., Any]) -> None:
    for arguments, said in (
        (("--model", "m", "--engine", "ecko"), "known: echo, llama, llama_server"),
        (("--model", "m", "--engine", "echo", "--option", "rat=1"), "did you mean 'rate'?"),
        (("--model", "smollm2-135n", "--engine", "llama_server"), "Did you mean 'smollm2-135m'"),
        (("--model", "m", "--engine", "llama_server", "--weights", "file:/x.gguf", "--option", "chat_template=q"), "q"),
    ):
        worker = start(*arguments)
        assert worker.process.wait(60) == 2
        log = worker.log.read_text()
        assert said in log
        assert len(log.splitlines()) == 1
