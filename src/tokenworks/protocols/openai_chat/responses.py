"""Whole answers of chat completions: an upstream's body -> events, and events -> the caller's body."""

from typing import Any

import msgspec

from tokenworks.core.events import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    UsageReport,
)
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.openai_chat import types as wire
from tokenworks.protocols.openai_chat.calls import Numbers
from tokenworks.protocols.openai_chat.reasoning import NAME as DETAILS
from tokenworks.protocols.openai_chat.reasoning import Details, Thoughts
from tokenworks.protocols.openai_chat.signed_calls import signed_id
from tokenworks.protocols.validation import present

_DECODER = msgspec.json.Decoder(wire.Answer)
_TIMINGS = msgspec.json.Decoder(wire.Timings)
_UNTOLD = msgspec.Raw()
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode

DEFAULT_TIER = "default"
"""What engines of ours answer at, whatever was asked for."""

_FINISH = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


def finish_reason(text: str) -> FinishReason:
    """An unknown reason is a host's own word for having stopped."""
    return _FINISH.get(text, FinishReason.STOP)


def read_usage(body: wire.UsageBody, timings: msgspec.Raw = _UNTOLD) -> Usage:
    prompt = body.prompt_tokens_details or _NO_PROMPT
    completion = body.completion_tokens_details or _NO_COMPLETION
    read = body.cached_tokens if prompt.cached_tokens is None else prompt.cached_tokens
    fresh, cached, written = disjoint(body.prompt_tokens, read, prompt.cache_write_tokens)
    output = body.completion_tokens or 0
    # Some hosts count reasoning, which they charge as output, in the total alone.
    hidden = max((body.total_tokens or 0) - body.prompt_tokens - output, 0)
    return Usage(
        input=fresh,
        cached_input=cached,
        cache_write=written,
        output=output + hidden,
        reasoning=completion.reasoning_tokens or hidden,
        input_audio=prompt.audio_tokens or 0,
        input_image=prompt.image_tokens or 0,
        output_audio=completion.audio_tokens or 0,
        output_image=completion.image_tokens or 0,
        gpu_ms=_computed(timings) if present(timings) else 0,
    )


def _computed(timings: msgspec.Raw) -> int:
    try:
        told = _TIMINGS.decode(timings)
        return round(told.prompt_ms + told.predicted_ms)
    except (msgspec.MsgspecError, OverflowError, ValueError):  # somebody else's word for something else
        return 0


_NO_PROMPT, _NO_COMPLETION = wire.PromptDetails(), wire.CompletionDetails()


def disjoint(prompt: int, cached: int | None, written: int | None) -> tuple[int, int, int]:
    """(input, read from a cache, written to one), which add up to `prompt`: OpenAI counts the others in it, and one
    host tells the same tokens as read and as written."""
    read = min(cached or 0, prompt)
    wrote = min(written or 0, prompt - read)
    return prompt - read - wrote, read, wrote


def usage_chunk(chunk: bytes, usage: Usage) -> bytes:
    """The last chunk of a stream, of which `chunk` is another."""
    last = {**_MEMBERS.decode(chunk), "choices": [], "usage": encode_usage(usage)}
    return b"data: " + _ENCODE(last) + b"\n\n"


def with_choices(chunk: bytes) -> bytes:
    """A chunk that had no list of them: clients go through it."""
    return _ENCODE({**_MEMBERS.decode(chunk), "choices": []})


def encode_usage(usage: Usage) -> dict[str, Any]:
    prompt = {"cached_tokens": usage.cached_input, "cache_write_tokens": usage.cache_write}
    completion = {"reasoning_tokens": usage.reasoning}
    if usage.input_audio or usage.output_audio:
        prompt["audio_tokens"], completion["audio_tokens"] = usage.input_audio, usage.output_audio
    if usage.input_image or usage.output_image:
        prompt["image_tokens"], completion["image_tokens"] = usage.input_image, usage.output_image
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.output,
        "total_tokens": usage.total,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": completion,
    }


def decode_answer(body: bytes) -> wire.Answer:
    """ValueError when it is not one."""
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def read_response(body: bytes) -> list[Event]:
    answer = decode_answer(body)
    if not answer.choices or any(choice.message is None or not choice.finish_reason for choice in answer.choices):
        raise ValueError("it has no finished choice")
    events: list[Event] = [Started(answer.id or "", answer.model or "", answer.service_tier)]
    for position, choice in enumerate(answer.choices):
        events += read_choice(choice, position)
    if answer.usage is not None:
        events.append(UsageReport(read_usage(answer.usage, answer.timings)))
    return events


def read_choice(
    choice: wire.Choice, position: int, numbers: Numbers | None = None, thoughts: Thoughts | None = None
) -> list[Event]:
    """One choice of a whole answer, or of a chunk of a stream whose calls have `numbers` and which tells `thoughts`."""
    events: list[Event] = []
    index = position if choice.index is None else choice.index
    delta = choice.delta or choice.message
    if delta is not None:
        text, thought = content_of(delta.content)
        reasoning, details = delta.reasoning_content or delta.reasoning or thought, delta.reasoning_details
        if present(details):
            events += (thoughts or Thoughts()).of(reasoning, details, index)
        elif reasoning:
            events += [ReasoningDelta(reasoning, index)] if thoughts is None else thoughts.of(reasoning, _UNTOLD, index)
        if text:
            events.append(TextDelta(text, index, read_logprobs(choice.logprobs)))
        if delta.refusal:
            events.append(RefusalDelta(delta.refusal, index))
        for at, call in enumerate(delta.tool_calls or ()):
            number, begins = (at, True) if numbers is None else numbers.of(index, call)
            function = call.function or wire.FunctionDelta()
            named = (signed_id(call), function.name) if begins else (None, None)
            events.append(ToolCallDelta(number, function.arguments or "", *named, index))
    if choice.finish_reason:
        events.append(Finished(finish_reason(choice.finish_reason), index))
    return events


def content_of(content: str | list[wire.ContentChunk] | None) -> tuple[str, str]:
    """(text, reasoning) of a content, whole or in parts."""
    if content is None or isinstance(content, str):
        return content or "", ""
    text = "".join([part.text for part in content if part.type == "text"])
    return text, "".join([thought.text for part in content for thought in part.thinking])


def read_logprobs(given: wire.ChoiceLogprobs | None) -> list[TokenLogprob] | None:
    if given is None or given.content is None:
        return None
    return [
        TokenLogprob(
            token.token, token.logprob, token.bytes, [(top.token, top.logprob, top.bytes) for top in token.top_logprobs]
        )
        for token in given.content
    ]


def encode_logprobs(given: list[TokenLogprob] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    return {
        "content": [
            {
                "token": token.token,
                "logprob": token.logprob,
                "bytes": token.bytes,
                "top_logprobs": [{"token": t, "logprob": p, "bytes": b} for t, p, b in token.top],
            }
            for token in given
        ],
        "refusal": None,
    }


class _Choice:
    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.reasoning: list[str] = []
        self.details: list[dict[str, Any]] = []
        self._details = Details()
        self.calls: dict[int, dict[str, Any]] = {}
        self.logprobs: list[TokenLogprob] | None = None
        self.finish = FinishReason.STOP

    def add(self, event: Event) -> None:
        match event:
            case RefusalDelta():
                self.refusal.append(event.text)
            case TextDelta():
                self.text.append(event.text)
                if event.logprobs is not None:
                    self.logprobs = (self.logprobs or []) + event.logprobs
            case ReasoningDelta():
                self.reasoning.append(event.text)
                self.details += self._details.of(event)
            case ToolCallDelta():
                call = self.calls.setdefault(event.call, {"id": event.id, "name": event.name, "arguments": []})
                call["arguments"].append(event.arguments)
            case Finished():
                self.finish = event.reason

    def body(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(self.text) or None,
            "refusal": "".join(self.refusal) or None,
        }
        if not self.calls and not self.refusal and message["content"] is None:
            message["content"] = ""
        if any(self.reasoning) or (self.reasoning and not self.details):
            message["reasoning_content"] = message["reasoning"] = "".join(self.reasoning)
        if self.details:
            message[DETAILS] = self.details
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": "".join(call["arguments"])},
                }
                for _, call in sorted(self.calls.items())
            ]
        return {
            "index": index,
            "message": message,
            "logprobs": encode_logprobs(self.logprobs),
            "finish_reason": self.finish.value,
        }


def encode_response(request: Request, events: list[Event], response_id: str, created: int) -> bytes:
    choices: dict[int, _Choice] = {}
    usage, model, tier = Usage(), request.model, None
    for event in events:
        match event:
            case Started():
                model, tier = event.model or model, event.service_tier
            case UsageReport():
                usage = event.usage
            case TextDelta() | ReasoningDelta() | ToolCallDelta() | Finished():
                choices.setdefault(event.index, _Choice()).add(event)
    body = {
        "id": response_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice.body(index) for index, choice in sorted(choices.items())],
        "usage": encode_usage(usage),
        "system_fingerprint": None,
    }
    if request.service_tier is not None:
        body["service_tier"] = tier or DEFAULT_TIER
    return _ENCODE(body)
