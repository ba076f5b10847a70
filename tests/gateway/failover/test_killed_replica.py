"""kill -9 of one of two real replicas in the middle of a stream, with the default policy: the text is whole."""

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import KEY, running_gateway, wait_for
from tests.gateway.replicas import Replica
from tests.worker.conftest import SOURCE

from tokenworks.models import Entry, fetch
from tokenworks.snapshot.records import FREE, ModelRecord, PolicyRecord, TargetRecord

NUMBERS = " ".join(str(number) for number in range(60))
QUESTION = "Tell me in detail how a cat spends its day, from the morning to the night."
READ = 5
"""Chunks with text that the caller has when the replica is killed."""


@pytest.fixture(params=["echo", "smollm2"])
def engine(request: pytest.FixtureRequest) -> tuple[tuple[str, ...], str]:
    """How its worker is started, and what it is asked."""
    if request.param == "echo":
        return ("--engine", "echo", "--option", "rate=60"), NUMBERS
    cache = Path(os.environ.get("TOKENWORKS_CACHE_DIR", Path(__file__).parents[3] / ".cache"))
    weights = fetch(Entry(name="smollm2-135m", source=SOURCE), cache)
    options = ("--engine", "llama_server", "--weights", f"file:{weights}", "--option", "slots=1")
    return (*options, "--option", "context=1024", "--option", "threads=1"), QUESTION


class Stream:
    """What a caller sees of one."""

    def __init__(self, gateway: Any, question: str) -> None:
        self.chunks: list[dict[str, Any]] = []
        self.done = False
        self.raw = ""
        body = {"model": "two", "stream": True, "max_tokens": 24, "temperature": 0, "seed": 1}
        body |= {"messages": [{"role": "user", "content": question}], "stream_options": {"include_usage": True}}
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx2.stream(
            "POST", f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=60
        ) as response:
            self.headers = response.headers
            for line in response.iter_lines():
                self.raw += line + "\n"
                if line.startswith("data: {"):
                    self.chunks.append(json.loads(line[6:]))
                    self.came()
                self.done = self.done or line == "data: [DONE]"

    def came(self) -> None: ...

    @property
    def texts(self) -> list[str]:
        deltas = [choice["delta"].get("content") for each in self.chunks for choice in each["choices"]]
        return [text for text in deltas if text]

    @property
    def finishes(self) -> list[str]:
        reasons = [choice["finish_reason"] for each in self.chunks for choice in each["choices"]]
        return [reason for reason in reasons if reason]

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Disturbed(Stream):
    """`before`: what it said when the replica was killed."""

    def __init__(self, gateway: Any, question: str, replica: Replica) -> None:
        self.before = ""
        self._replica = replica
        super().__init__(gateway, question)

    def came(self) -> None:
        if not self.before and len(self.texts) == READ:
            self.before = self.text
            self._replica.kill()


def test_the_text_is_whole_and_nothing_is_said_twice_or_otherwise(
    servers: Any, engine: tuple[tuple[str, ...], str]
) -> None:
    arguments, question = engine
    with contextlib.ExitStack() as stack:
        replicas = [Replica(stack, name, arguments) for name in ("replica-a", "replica-b")]
        gateway = stack.enter_context(running_gateway(servers))
        records = [each.record() for each in replicas]
        state = gateway.control._state
        targets = tuple(TargetRecord(each.id, "m") for each in records)
        models = {**state.models, "two": ModelRecord("two", 1, targets, prices=(FREE,), policy=PolicyRecord())}
        upstreams = {**state.upstreams, **{each.id: each for each in records}}
        gateway.control.publish(replace(state, revision=state.revision + 1, models=models, upstreams=upstreams))
        listed = {"url": f"{gateway.url}/v1/models", "headers": {"Authorization": f"Bearer {KEY}"}}
        wait_for(lambda: b'"two"' in httpx2.get(**listed).content)
        expected, told = Stream(gateway, question), Disturbed(gateway, question, replicas[0])
    assert expected.done
    assert told.before
    assert "x-tokenworks-attempts=2" in told.raw
    assert told.text.startswith(told.before)
    assert not told.text[len(told.before) :].startswith(told.before)
    if "echo" in arguments:  # a real model that is told its own words may go on with others
        assert told.text == expected.text
    assert told.finishes == expected.finishes
    assert told.done
    assert len({each["id"] for each in told.chunks}) == 1
    was, now = (each.chunks[-1]["usage"]["completion_tokens"] for each in (expected, told))
    assert was == now
