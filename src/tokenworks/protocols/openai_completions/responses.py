"""Whole answers of text completions: an upstream's body -> events, and events -> the caller's body."""

from typing import Any

import msgspec

from tokenworks.core.events import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    UsageReport,
)
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.openai_chat import types as chat
from tokenworks.protocols.openai_chat.responses import encode_usage, finish_reason, read_logprobs, read_usage
from tokenworks.protocols.openai_completions import types as wire
from tokenworks.protocols.validation import present

_DECODER = msgspec.json.Decoder(wire.Answer)
_LOGPROBS = msgspec.json.Decoder(wire.Logprobs)
_ENCODE = msgspec.json.Encoder().encode


def decode_answer(body: bytes) -> wire.Answer:
    """ValueError when it is not one."""
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def read_response(body: bytes) -> list[Event]:
    answer = decode_answer(body)
    if not answer.choices or any(not choice.finish_reason for choice in answer.choices):
        raise ValueError("it has no finished choice")
    events: list[Event] = [Started(answer.id or "", answer.model or "")]
    for choice in answer.choices:
        events += read_choice(choice)
    if answer.usage is not None:
        events.append(UsageReport(read_usage(answer.usage, answer.timings)))
    return events


def read_choice(choice: wire.Choice) -> list[Event]:
    """One choice of a chunk or of a whole answer."""
    events: list[Event] = []
    if choice.text:
        events.append(TextDelta(choice.text, choice.index, _read_logprobs(choice.logprobs)))
    if choice.finish_reason:
        events.append(Finished(finish_reason(choice.finish_reason), choice.index))
    return events


def _read_logprobs(raw: msgspec.Raw) -> list[TokenLogprob] | None:
    if not present(raw):
        return None
    own = _LOGPROBS.decode(raw)
    if own.content is not None:
        return read_logprobs(chat.ChoiceLogprobs(own.content))
    alternatives = own.top_logprobs or []
    return [
        TokenLogprob(token, value or 0.0, None, [(text, p, None) for text, p in (top or {}).items()])
        for token, value, top in zip(
            own.tokens or (),
            own.token_logprobs or (),
            alternatives or [None] * len(own.tokens or ()),
            strict=False,
        )
    ]


def encode_logprobs(given: list[TokenLogprob] | None, offset: int) -> dict[str, Any] | None:
    """`offset` is the number of characters of the choice's text before these tokens."""
    if given is None:
        return None
    offsets = []
    for token in given:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in given],
        "token_logprobs": [token.logprob for token in given],
        "top_logprobs": [{text: p for text, p, _ in token.top} for token in given],
        "text_offset": offsets,
    }


class _Choice:
    def __init__(self) -> None:
        self.text: list[str] = []
        self.logprobs: list[TokenLogprob] | None = None
        self.finish = FinishReason.STOP

    def add(self, event: Event) -> None:
        match event:
            case TextDelta() | ReasoningDelta():
                self.text.append(event.text)
                if isinstance(event, TextDelta) and event.logprobs is not None:
                    self.logprobs = (self.logprobs or []) + event.logprobs
            case Finished():
                self.finish = event.reason

    def body(self, index: int) -> dict[str, Any]:
        return {
            "index": index,
            "text": "".join(self.text),
            "logprobs": encode_logprobs(self.logprobs, 0),
            "finish_reason": self.finish.value,
        }


def encode_response(request: Request, events: list[Event], response_id: str, created: int) -> bytes:
    choices: dict[int, _Choice] = {}
    usage, model = Usage(), request.model
    for event in events:
        match event:
            case Started():
                model = event.model or model
            case UsageReport():
                usage = event.usage
            case TextDelta() | ReasoningDelta() | Finished():
                choices.setdefault(event.index, _Choice()).add(event)
    return _ENCODE(
        {
            "id": response_id,
            "object": "text_completion",
            "created": created,
            "model": model,
            "choices": [choice.body(index) for index, choice in sorted(choices.items())],
            "usage": encode_usage(usage),
        }
    )
