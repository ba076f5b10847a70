"""Chaos by its names: what each says, and that it says it every time."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tokenworks.chaos.answers import TEXT
from tokenworks.chaos.cases import FAULTS
from tokenworks.chaos.faults import KINDS, Fault, read
from tokenworks.chaos.server import ChaosServer
from tokenworks.protocols import codec


def test_names_say_what_how_late_and_how_often() -> None:
    assert read("cut-after-7") == Fault("cut", 7)
    assert read("chaos/error-500@0.25:9") == Fault("error-500", share=0.25, seed=9)
    assert read("error-500-once").kind == "error-500-once"
    assert all(read(kind).kind == kind for kind in KINDS)
    with pytest.raises(ValueError, match="known: ok, rate-limited"):
        read("cut-off")


def test_a_share_is_drawn_by_its_seed() -> None:
    drawn = [read("silence@0.2:7").hits(number) for number in range(1000)]
    assert drawn == [read("silence@0.2:7").hits(number) for number in range(1000)]
    assert drawn != [read("silence@0.2:8").hits(number) for number in range(1000)]
    assert 150 < sum(drawn) < 250
    assert [read("flapping").hits(number) for number in range(7)] == [True] * 3 + [False] * 3 + [True]


def ask(models: list[str], path: str = "/chat/completions", **members: Any) -> list[tuple[int, bytes]]:
    """Status and what came of the body, for each model in turn."""

    async def go() -> list[tuple[int, bytes]]:
        server = ChaosServer(trickle=0.001)
        port = await server.start()
        answers = []
        async with aiohttp.ClientSession() as session:
            for model in models:
                body = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **members}
                status, received = 0, b""
                try:
                    async with asyncio.timeout(0.3):
                        url = f"http://127.0.0.1:{port}/v1{path}"
                        async with session.post(url, json=body) as response:
                            status = response.status
                            async for chunk in response.content.iter_any():
                                received += chunk
                except (aiohttp.ClientError, TimeoutError):
                    received += b"<broken>"
                answers.append((status, received))
        await server.close()
        assert server.connections == 0
        return answers

    return asyncio.run(go())


@pytest.mark.parametrize("path", ["/chat/completions", "/messages", "/responses", "/completions"])
def test_a_healthy_answer_is_whole_in_every_protocol(path: str) -> None:
    members: dict[str, Any] = {"input": "Hi"} if path == "/responses" else {"prompt": "Hi"}
    if path in ("/chat/completions", "/messages"):
        members = {}
    ((status, body),) = ask(["ok"], path, **members)
    assert (status, TEXT in body.decode()) == (200, True)


@pytest.mark.parametrize("stream", [True, False])
def test_every_fault_does_what_it_says(stream: bool) -> None:
    answers = dict(zip(KINDS, ask(list(KINDS), stream=stream), strict=True))
    refused = {kind: status for kind, (status, _) in answers.items() if status >= 400}
    assert refused == {
        "rate-limited": 429, "rate-limited-bare": 429, "error-500": 500, "error-500-once": 500, "overloaded": 503,
        "credential": 401, "quota": 429, "unknown-model": 404, "context-length": 400, "content-filter": 400,
        "flapping": 500,
    }  # fmt: skip
    whole = {"ok", "prefill-refused", "trickle", "huge-chunk", "wrong-usage"}
    for kind in set(KINDS) - set(refused):
        body = answers[kind][1]
        try:
            found = codec("openai_chat")
            reader = found.stream_reader()
            events = reader.feed(body) + reader.close() if stream else found.read_response(body)
            said = "".join(getattr(event, "text", "") for event in events)
        except Exception:
            said = ""
        finished = b'"finish_reason":"stop"' in body and b"<broken>" not in body
        assert (said == TEXT and finished) == (kind in whole), (kind, body[:300])


def test_it_goes_on_with_what_was_said_or_refuses_to() -> None:
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The quick brown fo"}]
    (_, went_on), (status, _) = ask(["ok", "prefill-refused"], messages=said)
    assert json.loads(went_on)["choices"][0]["message"]["content"] == TEXT.removeprefix("The quick brown fo")
    assert status == 400


def test_the_page_names_every_fault() -> None:
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "chaos.md").read_text()
    for kind, what in FAULTS.items():
        assert f"| `{kind}` | {what} |" in page
