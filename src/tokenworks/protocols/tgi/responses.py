"""Whole answers of TGI: an upstream's body -> events, and events -> the caller's body."""

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
from tokenworks.core.request import Prompts, Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.tgi import types as wire

_DECODER: msgspec.json.Decoder[list[wire.Answer] | wire.Answer] = msgspec.json.Decoder(list[wire.Answer] | wire.Answer)
_ENCODE = msgspec.json.Encoder().encode

UNKNOWN_ID = 0
"""Clients demand an id, and events carry none."""


def decode_answer(body: bytes) -> wire.Answer:
    """The one answer, in its list or bare. ValueError when there is none."""
    try:
        answers = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if isinstance(answers, wire.Answer):
        return answers
    if len(answers) != 1:
        raise ValueError(f"it has {len(answers)} answers instead of one")
    return answers[0]


def read_response(body: bytes) -> list[Event]:
    answer = decode_answer(body)
    if answer.details is None:
        raise ValueError("it has no details, so nobody knows how it finished")
    details = answer.details
    events: list[Event] = [Started("", "")]
    if answer.generated_text:
        logprobs = read_logprobs(details.tokens or [], details.top_tokens)
        events.append(TextDelta(answer.generated_text, logprobs=logprobs))
    if usage := read_usage(details):
        events.append(UsageReport(usage))
    return [*events, Finished(finish_reason(details.finish_reason))]


def finish_reason(text: str) -> FinishReason:
    return FinishReason.LENGTH if text == "length" else FinishReason.STOP


def read_usage(details: wire.Details) -> Usage | None:
    """None when the prompt was neither counted nor listed."""
    prompt = len(details.prefill or ()) if details.input_length is None else details.input_length
    return Usage(input=prompt, output=details.generated_tokens) if prompt else None


def read_logprobs(tokens: list[wire.Token], top: list[list[wire.Token]] | None) -> list[TokenLogprob] | None:
    """Log probabilities come with every token; alternatives only when somebody wants to see any of it."""
    if not top or not any(top):
        return None
    return [
        TokenLogprob(token.text, token.logprob or 0.0, None, [(one.text, one.logprob or 0.0, None) for one in others])
        for token, others in zip(tokens, top, strict=False)
        if not token.special
    ]


def encode_tokens(event: TextDelta | ReasoningDelta) -> list[tuple[dict[str, Any], list[dict[str, Any]] | None]]:
    """A piece of text as (token, alternatives): one of each when they are known, else the piece as one token."""
    logprobs = event.logprobs if isinstance(event, TextDelta) else None
    if not logprobs or "".join([one.token for one in logprobs]) != event.text:
        return [(token(event.text, logprobs[0].logprob if logprobs else None), None)] if event.text else []
    return [(token(one.token, one.logprob), [token(text, p) for text, p, _ in one.top] or None) for one in logprobs]


def token(text: str, logprob: float | None, *, special: bool = False) -> dict[str, Any]:
    return {"id": UNKNOWN_ID, "text": text, "logprob": logprob, "special": special}


class Summary:
    """What the end of an answer tells, gathered from its events."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._text: list[str] = []
        self._finish: Finished | None = None
        self._usage: Usage | None = None
        self._deltas = 0

    def add(self, event: Event) -> None:
        match event:
            case TextDelta() | ReasoningDelta():
                self._text.append(event.text)
                self._deltas += 1
            case UsageReport():
                self._usage = event.usage
            case Finished():
                self._finish = event

    def text(self) -> str:
        task = self._request.task
        prompt = task.prompts[0] if isinstance(task, Prompts) and self._request.options.get("full_text") else ""
        return "".join([prompt, *self._text]) if isinstance(prompt, str) else "".join(self._text)

    def details(self) -> dict[str, Any]:
        sampling = self._request.sampling
        details = {
            "finish_reason": self._reason(),
            "generated_tokens": self._usage.output if self._usage else self._deltas,
            "seed": None if sampling.temperature == 0 else sampling.seed,
        }
        return details | {"input_length": self._usage.prompt} if self._usage else details

    def _reason(self) -> str:
        if self._finish is None or self._finish.reason is not FinishReason.LENGTH:
            return "stop_sequence" if self._finish is not None and self._finish.stop_sequence else "eos_token"
        return "length"


def encode_response(request: Request, events: list[Event], response_id: str, created: int) -> bytes:
    summary = Summary(request)
    tokens: list[tuple[dict[str, Any], list[dict[str, Any]] | None]] = []
    for event in events:
        summary.add(event)
        if isinstance(event, TextDelta | ReasoningDelta):
            tokens += encode_tokens(event)
    body: dict[str, Any] = {"generated_text": summary.text()}
    if request.options.get("details"):
        listed: dict[str, Any] = {"prefill": [], "tokens": [one for one, _ in tokens]}
        if request.top_logprobs:
            listed["top_tokens"] = [others or [] for _, others in tokens]
        body["details"] = summary.details() | listed
    return encode_answer(request, body)


def encode_answer(request: Request, body: dict[str, Any]) -> bytes:
    return _ENCODE(body if request.options.get("bare") else [body])
