"""What providers have clients send back of earlier turns is carried, or said to be lost: never dropped silently."""

import json
from typing import Any

import pytest

from tokenworks.core.request import Request
from tokenworks.protocols import codec
from tokenworks.protocols.carried import lost

CHAT, RESPONSES, MESSAGES = codec("openai_chat"), codec("openai_responses"), codec("anthropic_messages")


def conversation(items: list[Any]) -> Request:
    user = {"role": "user", "content": "x"}
    return RESPONSES.decode_request(json.dumps({"model": "m", "input": [user, *items, user]}).encode())


def turns(blocks: list[Any]) -> Request:
    user = {"role": "user", "content": "x"}
    said = {"role": "assistant", "content": [*blocks, {"type": "text", "text": "y"}]}
    return MESSAGES.decode_request(json.dumps({"model": "m", "max_tokens": 9, "messages": [user, said, user]}).encode())


ENCRYPTED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
PHASED = {
    "type": "message",
    "role": "assistant",
    "phase": "commentary",
    "content": [{"type": "output_text", "text": "y", "annotations": []}],
}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "ZGF0YQ=="}


@pytest.mark.parametrize(
    ("request_", "upstream", "names"),
    [
        (conversation([ENCRYPTED, PHASED]), "openai_chat", ["encrypted_content", "phase"]),
        (conversation([ENCRYPTED, PHASED]), "worker", ["encrypted_content", "phase"]),
        (conversation([ENCRYPTED, PHASED]), "openai_responses", []),
        (conversation([PHASED]), "anthropic_messages", ["phase"]),
        (turns([SIGNED]), "openai_chat", ["signature"]),
        (turns([REDACTED]), "openai_chat", ["redacted_thinking"]),
        (turns([SIGNED, REDACTED]), "anthropic_messages", []),
    ],
)
def test_state_of_earlier_turns(request_: Request, upstream: str, names: list[str]) -> None:
    assert lost(request_, codec(upstream)) == names
    if not names:
        again = codec(upstream).decode_request(codec(upstream).encode_request(request_, "m", stream=False))
        assert again.task == request_.task


def test_an_ordinary_conversation_has_no_such_state() -> None:
    assert lost(turns([{"type": "thinking", "thinking": "hm", "signature": ""}]), CHAT) == []
