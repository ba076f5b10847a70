"""What Groq's API adds to OpenAI's chat: measured times in the usage, `x_groq`, a service tier in every answer, and a
say in how reasoning is shown."""

from dataclasses import replace
from typing import Any

import msgspec

from tokenworks.core.errors import TokenworksError
from tokenworks.core.events import Event, Finished, ReasoningDelta, Started, TextDelta, Timing, ToolCallDelta
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.allowances import groq_headers
from tokenworks.protocols.base import Codec, StreamWriter
from tokenworks.protocols.closing import ClosingWriter, extended, usage_and_timing
from tokenworks.protocols.groq import errors, requests
from tokenworks.protocols.openai_chat import responses
from tokenworks.protocols.openai_chat.codec import OpenAIChat

FINGERPRINT = "tokenworks"
_ENCODE = msgspec.json.Encoder().encode


class Told:
    """Events as Groq's callers get them: its words for tiers, and reasoning as it was asked for: parsed
    (apart), raw (in the text, between tags) or hidden."""

    def __init__(self, how: str) -> None:
        self._how = how
        self._thinking: set[int] = set()

    def __call__(self, event: Event) -> list[Event]:
        if isinstance(event, ReasoningDelta) and self._how != "parsed":
            if self._how == "hidden" or not event.text:
                return []
            begun = event.index in self._thinking
            self._thinking.add(event.index)
            return [TextDelta(event.text if begun else f"<think>\n{event.text}", event.index)]
        if isinstance(event, Started):
            return [replace(event, service_tier=requests.tier_of(event.service_tier or responses.DEFAULT_TIER))]
        if isinstance(event, TextDelta | ToolCallDelta | Finished) and event.index in self._thinking:
            self._thinking.discard(event.index)
            return [TextDelta("\n</think>\n", event.index), event]
        return [event]


def _usage(usage: Usage, timing: Timing) -> dict[str, Any]:
    return {
        **responses.encode_usage(usage),
        "queue_time": timing.queue,
        "prompt_time": timing.prompt,
        "completion_time": timing.completion,
        "total_time": timing.total,
    }


def _mark(request: Request, response_id: str) -> dict[str, Any]:
    mark: dict[str, Any] = {"id": f"req_{response_id.removeprefix('chatcmpl-')}"}
    return mark if request.sampling.seed is None else mark | {"seed": request.sampling.seed}


class Writer:
    """`x_groq` comes with the first chunk and with the last, there with the usage."""

    def __init__(self, writer: StreamWriter, request: Request, mark: dict[str, Any]) -> None:
        self._mark = mark
        self._told = Told(request.options[requests.SHOWN])
        self._writer = ClosingWriter(writer, self._closing)
        self._begun = False

    def _closing(self, usage: Usage, timing: Timing) -> dict[str, Any]:
        told = _usage(usage, timing)
        return {"x_groq": self._mark | {"usage": told}, "usage": told}

    def feed(self, event: Event) -> bytes:
        chunks = b"".join([self._writer.feed(shown) for shown in self._told(event)])
        if chunks and not self._begun:
            self._begun = True
            first, _, rest = chunks.partition(b"\n\n")
            return extended(first, {"x_groq": self._mark}) + b"\n\n" + rest
        return chunks

    def close(self) -> bytes:
        return self._writer.close()


class GroqChat(OpenAIChat):
    name = requests.NAME

    decode_request = staticmethod(requests.decode_request)
    encode_error = staticmethod(errors.encode_error)
    allowance_headers = staticmethod(groq_headers)
    encode_stream_error = staticmethod(errors.encode_stream_error)

    @staticmethod
    def encode_response(request: Request, events: list[Event], response_id: str, created: int) -> bytes:
        told = Told(request.options[requests.SHOWN])
        shown = [each for event in events for each in told(event)]
        body = msgspec.json.decode(responses.encode_response(request, shown, response_id, created))
        for choice in body["choices"]:
            choice["message"].pop("reasoning_content", None)
        body["usage"] = _usage(*usage_and_timing(events))
        body["system_fingerprint"] = FINGERPRINT
        return _ENCODE(body | {"x_groq": _mark(request, response_id)})

    def stream_writer(self, request: Request, response_id: str, created: int) -> StreamWriter:
        return Writer(super().stream_writer(request, response_id, created), request, _mark(request, response_id))

    def error_status(self, error: TokenworksError) -> int:
        return errors.error_status(error)


CODEC: Codec = GroqChat()
