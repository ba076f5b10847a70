"""What an upstream is told so that it goes on: by its protocol, or by how its endpoint wants it."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tokenworks.core.errors import UpstreamBroken
from tokenworks.core.events import ReasoningDelta, TextDelta
from tokenworks.core.usage import Usage
from tokenworks.gateway.failover.continuing import Story, join, resumed
from tokenworks.gateway.failover.trying import Try
from tokenworks.gateway.upstreams.prepare import prepare
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation
from tokenworks.protocols.said import Said
from tokenworks.protocols.translation import Translation
from tokenworks.snapshot.records import UpstreamRecord

CHAT, TEXTS = codec("openai_chat"), codec("openai_completions")


def upstream(protocol: str, *quirks: str) -> UpstreamRecord:
    return UpstreamRecord("u", "u", (protocol,), "http://u", quirks=quirks)


def story(text: str = "Once upon ", told: int = 3) -> Story:
    said = Said()
    said.add([TextDelta(text)])
    writer = CHAT.stream_writer(CHAT.decode_request(chat(stream_options={"include_usage": True})), "id", 1)
    return Story(said, writer, told)


def chat(**members: Any) -> bytes:
    question = [{"role": "user", "content": "A tale"}]
    return json.dumps({"model": "m", "messages": question, "stream": True, **members}).encode()


def told(record: UpstreamRecord, **members: Any) -> tuple[dict[str, Any], Translation]:
    request, tale = CHAT.decode_request(chat(**members)), story()
    asked = resumed(tale, request, record)
    assert asked is not None
    prepared = prepare(CHAT, asked, record, "up", Observation(), ("id", 1), anew=True)
    joined = join(tale, prepared, record, resume=True)
    assert isinstance(joined.relay, Translation)
    return json.loads(joined.body), joined.relay


@pytest.mark.parametrize("quirk", ["continues_prefill", "continues_marked", "continues_flagged"])
def test_each_way_of_saying_it(quirk: str) -> None:
    body, _ = told(upstream("openai_chat", quirk), max_tokens=10)
    assert body["max_tokens"] == 7  # three are told already
    last = body["messages"][-1]
    assert (last["role"], last["content"]) == ("assistant", "Once upon")  # no upstream likes white space at its end
    assert last.get("prefix") == (True if quirk == "continues_marked" else None)
    assert body.get("continue_final_message") == (True if quirk == "continues_flagged" else None)
    assert body.get("add_generation_prompt") == (False if quirk == "continues_flagged" else None)


def test_messages_go_on_by_their_protocol() -> None:
    body, _ = told(upstream("anthropic_messages"))
    assert body["messages"][-1]["role"] == "assistant"
    assert resumed(story(), CHAT.decode_request(chat()), upstream("anthropic_messages", "no_prefill")) is None
    assert resumed(story(), CHAT.decode_request(chat()), upstream("openai_chat")) is None


def test_text_completions_go_on_by_appending() -> None:
    request = TEXTS.decode_request(json.dumps({"model": "m", "prompt": "A tale: ", "stream": True}).encode())
    asked = resumed(story(), request, upstream("openai_completions"))
    assert asked is not None
    assert asked.task.prompts == ["A tale: Once upon "]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "members",
    [
        {"n": 2},
        {"logprobs": True},
        {"max_tokens": 3},
        {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "own prefill"}]},
    ],
)
def test_what_cannot_be_resumed(members: dict[str, Any]) -> None:
    request = CHAT.decode_request(chat(**members))
    assert resumed(story(), request, upstream("openai_chat", "continues_prefill")) is None


def test_thoughts_cannot_be_resumed() -> None:
    thinking = story()
    thinking.said.add([ReasoningDelta("hm")])
    assert resumed(thinking, CHAT.decode_request(chat()), upstream("openai_chat", "continues_prefill")) is None


@pytest.mark.parametrize("quirks", [("continues_marked",), ("continues_marked", "repeats_prefix")])
def test_the_usage_that_the_caller_sees_is_of_the_whole_answer(quirks: tuple[str, ...]) -> None:
    _, relay = told(upstream("openai_chat", *quirks))
    words = ["Once upon ", "a time"] if "repeats_prefix" in quirks else ["a time"]
    sent = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in words]
    sent += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
    sent += [{"choices": [], "usage": {"prompt_tokens": 13, "completion_tokens": 2, "total_tokens": 15}}]
    out = b"".join(relay.feed(b"data: " + json.dumps(one).encode() + b"\n\n") for one in sent) + relay.close()
    reader = CHAT.stream_reader()
    events = reader.feed(out)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "a time"
    assert relay.observation.usage == Usage(13, output=2)  # what the upstream did
    assert b'"prompt_tokens":10' in out
    assert b'"completion_tokens":5' in out


def test_words_that_came_with_what_is_garbled_were_told_to_nobody_and_are_not_counted() -> None:
    request, seen = CHAT.decode_request(chat()), Observation()
    attempt: Any = SimpleNamespace(observation=seen, charge=0)
    prepared: Any = SimpleNamespace(fold=None, relay=CHAT.passthrough(request, seen), stream=True)
    nothing: Any = None
    one = Try(attempt, nothing, prepared, nothing, nothing)
    one.remember()
    word = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"Once"}}]}\n\n'
    assert one._take(word)
    with pytest.raises(UpstreamBroken):
        one._take(word + word + b"data: {no\n\n")
    assert (seen.deltas, one.passed) == (1, [word])
