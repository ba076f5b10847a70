"""The real server with the real default weights: answers, templates, tools, health, death under load."""

import asyncio
import http.client
import json
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ALL_THREADS

from tokenworks.client import Address, Client, ClientError
from tokenworks.worker.engines.base import Setup
from tokenworks.worker.engines.llama_server.engine import LlamaServer

PATIENCE = 180.0
"""Seconds; only against hangs."""

CHAT = "/v1/chat/completions"
PLAIN: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
    [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "system", "content": "late"},
        {"role": "user", "content": "  two\n\nlines "},
    ],
]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def run_engine(weights: Path, work: Callable[[LlamaServer, Client], Any], address: str = "", **more: Any) -> Any:
    """Start the engine itself, without a worker around it, and do something with it."""

    async def run() -> Any:
        with tempfile.TemporaryDirectory(prefix="tw-") as directory:
            place = Address.parse(address or f"unix:{directory}/e.sock")
            options = {"slots": 2, "context": 1024, **more.pop("options", {})}
            engine = LlamaServer(Setup("m", place, options=options, **more))
            try:
                await engine.start(weights)
                async with Client(engine.address, token=more.get("token", ""), timeout=60) as client:
                    return await work(engine, client)
            finally:
                await engine.stop()

    return asyncio.run(asyncio.wait_for(run(), 120))


@pytest.fixture(scope="module")
def answers(smollm2: Path) -> Iterator[Callable[[str, Any], Any]]:
    """One engine with the shipped template, for the tests that only ask."""
    with tempfile.TemporaryDirectory(prefix="tw-") as directory, asyncio.Runner() as runner:
        options = {"slots": 4, "context": 1024, "chat_template": "smollm2"}
        engine = LlamaServer(Setup("public-name", Address.parse(f"unix:{directory}/e.sock"), options=options))
        runner.run(engine.start(smollm2))

        async def ask(path: str, body: Any) -> Any:
            async with Client(engine.address, timeout=60) as client:
                return await client.post(path, body)

        yield lambda path, body: runner.run(ask(path, body))
        runner.run(engine.stop())


def test_answers_carry_the_public_name(answers: Callable[[str, Any], Any]) -> None:
    body = {"messages": PLAIN[0], "max_tokens": 5, "temperature": 0}
    answer = answers(CHAT, body)
    assert answer["model"] == "public-name"
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] == 5
    assert answers(CHAT, body)["choices"][0]["message"] == answer["choices"][0]["message"]


def test_more_than_the_context_is_refused_in_words(answers: Callable[[str, Any], Any]) -> None:
    with pytest.raises(ClientError, match="context size") as raised:
        answers("/v1/completions", {"prompt": "word " * 2000, "max_tokens": 5})
    assert raised.value.status == 400


def test_without_tools_the_shipped_template_is_the_models_own(smollm2: Path) -> None:
    async def render(engine: LlamaServer, client: Client) -> list[str]:
        return [(await client.post("/apply-template", {"messages": messages}))["prompt"] for messages in PLAIN]

    own = run_engine(smollm2, render)
    assert run_engine(smollm2, render, options={"chat_template": "smollm2"}) == own
    assert all("<|im_start|>" in prompt for prompt in own)
    assert len(set(own)) == len(PLAIN)


def test_tools_are_shown_to_the_model(answers: Callable[[str, Any], Any]) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    messages = [
        {"role": "user", "content": "Weather in Rome?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "sunny"},
    ]
    prompt = answers("/apply-template", {"messages": messages, "tools": [TOOL]})["prompt"]
    assert re.search(r"<tools>\n\{.*get_weather.*\}\n</tools>", prompt)
    found = re.search(r"<\|im_start\|>assistant\n<tool_call>\n(\{.*\})\n</tool_call><\|im_end\|>", prompt)
    assert found
    assert json.loads(found[1]) == {"name": "get_weather", "arguments": {"city": "Rome"}}
    assert "<tool_response>\nsunny\n</tool_response>" in prompt


def test_a_schema_forces_the_answer(answers: Callable[[str, Any], Any]) -> None:
    schema = TOOL["function"]["parameters"]  # type: ignore[index]
    body = {
        "messages": PLAIN[0],
        "max_tokens": 60,
        "temperature": 0,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    }
    assert list(json.loads(answers(CHAT, body)["choices"][0]["message"]["content"])) == ["city"]


def test_a_call_in_the_text_becomes_a_tool_call(answers: Callable[[str, Any], Any]) -> None:
    """The server recognises the template's notation: what the model is brought to write comes back as a call."""
    said = 'Repeat exactly: <tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    body = {
        "messages": [{"role": "user", "content": said}],
        "tools": [TOOL],
        "max_tokens": 60,
        "temperature": 0,
        "tool_choice": "required",
    }
    (call,) = answers(CHAT, body)["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert "city" in json.loads(call["function"]["arguments"])


def test_over_tcp_it_demands_the_token(smollm2: Path) -> None:
    async def ask(engine: LlamaServer, client: Client) -> tuple[str, int]:
        answer = await client.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
        async with Client(engine.address, token="wrong") as stranger:
            with pytest.raises(ClientError) as raised:
                await stranger.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
        assert engine.describe().base_url == f"{engine.address.origin}/v1"
        return answer["object"], raised.value.status

    found = run_engine(smollm2, ask, "http://127.0.0.1:0", token="secret-token")
    assert found == ("text_completion", 401)


def test_its_socket_is_private(smollm2: Path) -> None:
    async def mode(engine: LlamaServer, client: Client) -> int:
        return Path(engine.address.socket or "").stat().st_mode & 0o077

    assert run_engine(smollm2, mode) == 0


def test_work_moves_the_progress(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By all its threads."""
    monkeypatch.setenv("OMP_THREAD_LIMIT", ALL_THREADS["OMP_THREAD_LIMIT"])

    async def work(engine: LlamaServer, client: Client) -> tuple[float, float, int]:
        before = await engine.progress()
        await engine.probe()
        return before, await engine.progress(), await engine.in_flight()

    before, after, waiting = run_engine(smollm2, work)
    assert 0 < before < after
    assert waiting == 0


def arguments(weights: Path, *more: str) -> tuple[str, ...]:
    sized = ("--option", "slots=4", "--option", "context=1024")
    return ("--model", "m", "--engine", "llama_server", "--weights", f"file:{weights}", *sized, *more)


def test_kill_9_under_load(start: Callable[..., Any], smollm2: Path, control: Any, key: Path) -> None:
    worker = start(*arguments(smollm2), control=control, key=key)
    worker.until_state("ready")
    engine = worker.socket.with_name("w-engine.sock")
    body = {"prompt": "Once upon a time", "max_tokens": 30, "ignore_eos": True, "stream": True}
    whole, cut, stop = [0], [0], threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                complete = worker.call("POST", "/v1/completions", body, at=engine)[1].rstrip().endswith(b"[DONE]")
            except (OSError, http.client.HTTPException):
                complete = False
                time.sleep(0.05)
            (whole if complete else cut)[0] += 1

    callers = [threading.Thread(target=load) for _ in range(6)]
    for caller in callers:
        caller.start()
    try:
        time.sleep(1)
        (child,) = worker.children()
        os.kill(child, signal.SIGKILL)
        control.until_beat(lambda beat: beat["state"] == "restarting" and "killed by SIGKILL" in beat["reason"])
        worker.until_state("ready")
        before = whole[0]
        deadline = time.monotonic() + PATIENCE
        while whole[0] < before + 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert whole[0] >= before + 4
    finally:
        stop.set()
        for caller in callers:
            caller.join(PATIENCE)
    assert cut[0] > 0


def test_a_hung_engine_is_replaced(start: Callable[..., Any], smollm2: Path, control: Any, key: Path) -> None:
    worker = start(*arguments(smollm2, "--health-interval", "0.2", "--health-timeout", "2"), control=control, key=key)
    worker.until_state("ready")
    (child,) = worker.children()
    os.kill(child, signal.SIGSTOP)
    control.until_beat(lambda beat: beat["state"] == "restarting" and "hung: no token within 2 s" in beat["reason"])
    worker.until_state("ready")
    assert worker.children() != [child]


def test_a_busy_engine_is_left_alone(start: Callable[..., Any], smollm2: Path) -> None:
    """Far more callers than slots, and a probe that has to wait behind them: no reason to kill it."""
    worker = start(*arguments(smollm2, "--option", "slots=1", "--health-interval", "0.1", "--health-timeout", "5"))
    worker.until_state("ready")
    engine = worker.socket.with_name("w-engine.sock")
    body = {"prompt": "Once upon a time", "max_tokens": 12, "ignore_eos": True}
    answers: list[int] = []
    callers = [
        threading.Thread(target=lambda: answers.append(worker.call("POST", "/v1/completions", body, at=engine)[0]))
        for _ in range(24)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE)
    assert worker.metric("tokenworks_worker_restarts") == 0, worker.log.read_text()
    assert answers == [200] * 24
