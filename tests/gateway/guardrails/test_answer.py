"""Answers of any events in any pieces: the same is told, streamed or whole, and no half of a secret ever."""

import asyncio
import re
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.guardrails.conftest import pii

from tokenworks.core.caller import Caller
from tokenworks.core.events import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from tokenworks.core.request import Conversation, Request
from tokenworks.core.usage import Usage
from tokenworks.gateway.guardrails.answer import Watched
from tokenworks.gateway.guardrails.base import Session
from tokenworks.gateway.guardrails.guardrails import Watch
from tokenworks.gateway.guardrails.redactor import Redactor
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation
from tokenworks.telemetry.metrics import Metrics

SECRETS = ["alice@example.com", "4111 1111 1111 1111", "AKIAIOSFODNN7EXAMPLE", "+44 20 7946 0958", "123-45-6789"]
METRICS = Metrics()
REDACT, BLOCK = Redactor(pii()), Redactor(pii(action="block"))
CHAT = codec("openai_chat")

filler = st.text("abcdefg XYZ.,!?\n'[]_-", max_size=25)
said = st.lists(st.tuples(filler, st.sampled_from(["", *SECRETS])), max_size=4).map(
    lambda parts: "".join(f"{before} {secret} " for before, secret in parts)
)
answers = st.tuples(said, said, st.lists(said, max_size=2))
"""(thoughts, text, arguments of calls)"""


def events_of(answer: tuple[str, str, list[str]], sizes: list[int]) -> list[Event]:
    """The answer in pieces of these sizes, in turn."""
    thoughts, text, calls = answer
    turn = iter(sizes * 10_000)

    def pieces(whole: str) -> list[str]:
        cut = []
        while whole:
            size = next(turn)
            cut.append(whole[:size])
            whole = whole[size:]
        return cut

    events: list[Event] = [Started("x", "m")]
    events += [ReasoningDelta(piece) for piece in pieces(thoughts)]
    events += [TextDelta(piece) for piece in pieces(text)]
    for number, call in enumerate(calls):
        arguments = msgspec.json.encode({"text": call, "n": 1}).decode()
        events += [ToolCallDelta(number, "", f"c{number}", "tell")]
        events += [ToolCallDelta(number, piece) for piece in pieces(arguments)]
    return [*events, Finished(FinishReason.STOP), UsageReport(Usage(input=3, output=4))]


def watched(hook: Redactor, request: Request) -> Watched:
    session = Session("r1", Caller("key", "proj", "org", None), "m", b"", METRICS)
    return Watched(Watch(session, (hook,), False, msgspec.json.decode(b"{}"), ""), CHAT, request, Observation())


def told(hook: Redactor, events: list[Event], *, stream: bool) -> tuple[dict[str, Any], list[str]]:
    """The answer as a client puts it together, and all that it got, event by event."""
    request = Request("m", Conversation([]), "openai_chat", stream=stream)
    looking = watched(hook, request)
    got: list[bytes] = []

    async def go() -> None:
        if not stream:
            looking.codec.encode_response(request, events, "x", 1)
        else:
            writer = looking.codec.stream_writer(request, "x", 1)
            for event in events:
                writer.feed(event)
                got.append(await looking.written())
            writer.close()
        got.append(await looking.finished())

    asyncio.run(go())
    if not stream:
        choice = msgspec.json.decode(got[0])["choices"][0]
        message = choice["message"]
        calls = [call["function"]["arguments"] for call in message.get("tool_calls") or []]
        thoughts = message.get("reasoning_content") or ""
        return {
            "thoughts": thoughts,
            "text": message.get("content") or "",
            "calls": calls,
            "why": choice["finish_reason"],
        }, []
    answer: dict[str, Any] = {"thoughts": "", "text": "", "calls": [], "why": None}
    for data in re.findall(rb"data: (\{.*\})\n", b"".join(got)):
        for choice in msgspec.json.decode(data)["choices"]:
            delta = choice["delta"]
            answer["thoughts"] += delta.get("reasoning_content") or ""
            answer["text"] += delta.get("content") or ""
            answer["why"] = choice["finish_reason"] or answer["why"]
            for call in delta.get("tool_calls") or []:
                answer["calls"] += [""] * (call["index"] + 1 - len(answer["calls"]))
                answer["calls"][call["index"]] += call["function"].get("arguments") or ""
    return answer, [piece.decode() for piece in got]


@settings(max_examples=60)
@given(answers, st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_streamed_is_whole_and_nothing_leaks(answer: tuple[str, str, list[str]], sizes: list[int]) -> None:
    for hook in (REDACT, BLOCK):
        whole, _ = told(hook, events_of(answer, [10_000]), stream=False)
        streamed, _ = told(hook, events_of(answer, sizes), stream=True)
        assert streamed == whole
        for secret in SECRETS:
            for text in (streamed["thoughts"], streamed["text"], *streamed["calls"]):
                assert secret not in text
        has = any(secret in text for secret in SECRETS for text in (answer[0], answer[1], *answer[2]))
        assert (streamed["why"] == "content_filter") == (has and hook is BLOCK)
        if hook is REDACT:
            for call in streamed["calls"]:
                assert msgspec.json.decode(call)["n"] == 1


@settings(max_examples=30)
@given(st.sampled_from(SECRETS), st.lists(st.integers(1, 4), min_size=1, max_size=6), st.sampled_from([REDACT, BLOCK]))
def test_no_beginning_of_a_secret_is_out_at_any_time(secret: str, sizes: list[int], hook: Redactor) -> None:
    _, pieces = told(hook, events_of(("", f"Hm: {secret}", []), sizes), stream=True)
    texts = re.findall(r'"content":"([^"]*)"', "".join(pieces))
    assert re.fullmatch(r"Hm: (\[[A-Z_]+_1\])?", "".join(texts))
