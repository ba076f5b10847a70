"""Usage is the same in every protocol: kinds are disjoint, add up to what the host counted, and survive being told."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.usage import Usage
from tokenworks.protocols.anthropic_messages import responses as messages
from tokenworks.protocols.anthropic_messages import types as messages_wire
from tokenworks.protocols.openai_chat import responses as chat
from tokenworks.protocols.openai_chat import types as chat_wire
from tokenworks.protocols.openai_responses import responses
from tokenworks.protocols.openai_responses import types as responses_wire

TOKENS = st.integers(0, 10**6)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    written, output = draw(TOKENS), draw(TOKENS)
    return Usage(
        input=draw(TOKENS),
        cached_input=draw(TOKENS),
        cache_write=written,
        output=output,
        reasoning=draw(st.integers(0, output)),
        cache_write_1h=draw(st.integers(0, written)),
    )


def chat_again(usage: Usage) -> Usage:
    return chat.read_usage(msgspec.convert(chat.encode_usage(usage), chat_wire.UsageBody))


def responses_again(usage: Usage) -> Usage:
    return responses.read_usage(msgspec.convert(responses.encode_usage(usage), responses_wire.UsageBody))


def messages_again(usage: Usage) -> Usage:
    return messages.read_usage(msgspec.convert(messages.encode_usage(usage), messages_wire.UsageBody))


@given(usages())
def test_told_and_read_it_is_the_same(usage: Usage) -> None:
    assert messages_again(usage) == responses_again(usage) == usage
    kept_how_long = Usage(cache_write_1h=usage.cache_write_1h)
    assert chat_again(usage) + kept_how_long == usage, "chat completions do not say for how long"


@given(TOKENS, TOKENS, TOKENS, TOKENS)
def test_what_a_host_counts_twice_is_billed_once(prompt: int, cached: int, written: int, long: int) -> None:
    details: dict[str, Any] = {"cached_tokens": cached, "cache_write_tokens": written}
    body = msgspec.convert({"prompt_tokens": prompt, "prompt_tokens_details": details}, chat_wire.UsageBody)
    assert chat.read_usage(body).prompt == prompt
    details["cache_write_tokens_details"] = {"ttl_12h_tokens": long}
    told = {"input_tokens": prompt, "output_tokens": 0, "input_tokens_details": details}
    usage = responses.read_usage(msgspec.convert(told, responses_wire.UsageBody))
    assert usage.prompt == prompt and usage.cache_write_1h <= usage.cache_write


def test_audio_and_images_are_parts_of_the_counts() -> None:
    usage = Usage(input=10, output=5, input_audio=4, input_image=3, output_audio=2, output_image=1)
    assert chat_again(usage) == usage
