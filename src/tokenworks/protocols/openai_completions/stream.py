"""Streams of text completions. The same rules as chat's; usage comes in a last chunk without choices."""

from typing import Any

import msgspec

from tokenworks.core.events import Event, Failed, Finished, ReasoningDelta, Started, TextDelta, UsageReport
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.chunks import DONE, ChunkReader, ChunkRelay
from tokenworks.protocols.openai_chat.errors import read_stream_error
from tokenworks.protocols.openai_chat.responses import (
    encode_usage,
    finish_reason,
    read_usage,
    usage_chunk,
    with_choices,
)
from tokenworks.protocols.openai_completions import types as wire
from tokenworks.protocols.openai_completions.responses import decode_answer, encode_logprobs, read_choice
from tokenworks.protocols.validation import present

_ENCODE = msgspec.json.Encoder().encode


class StreamReader(ChunkReader):
    def _read(self, data: bytes) -> list[Event]:
        answer = decode_answer(data)
        if present(answer.error):
            return [Failed(read_stream_error(bytes(answer.error)))]
        events = self._start(answer.id, answer.model)
        for choice in answer.choices or ():
            events += read_choice(choice)
        if answer.usage is not None:
            events.append(self._report(read_usage(answer.usage, answer.timings)))
        return events


class StreamWriter:
    def __init__(self, request: Request, response_id: str, created: int) -> None:
        self._head: dict[str, Any] = {
            "id": response_id,
            "object": "text_completion",
            "created": created,
            "model": request.model,
        }
        self._include_usage = request.include_usage
        self._usage = Usage()
        self._offsets: dict[int, int] = {}

    def feed(self, event: Event) -> bytes:
        match event:
            case TextDelta() | ReasoningDelta():
                offset = self._offsets.get(event.index, 0)
                self._offsets[event.index] = offset + len(event.text)
                given = event.logprobs if isinstance(event, TextDelta) else None
                return self._chunk(event.index, event.text, logprobs=encode_logprobs(given, offset))
            case Finished():
                return self._chunk(event.index, "", finish=event.reason.value)
            case UsageReport():
                self._usage = event.usage
            case Started():
                self._head["model"] = event.model or self._head["model"]
        return b""

    def close(self) -> bytes:
        if not self._include_usage:
            return DONE
        last = self._head | {"choices": [], "usage": encode_usage(self._usage)}
        return b"data: " + _ENCODE(last) + b"\n\n" + DONE

    def _chunk(
        self, index: int, text: str, *, finish: str | None = None, logprobs: dict[str, Any] | None = None
    ) -> bytes:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return b"data: " + _ENCODE(self._head | {"choices": [choice]}) + b"\n\n"


class Passthrough(ChunkRelay):
    def _see(self, data: bytes) -> bytes | None:
        answer = decode_answer(data)
        if present(answer.error):
            raise read_stream_error(bytes(answer.error))
        self._note(answer)
        if answer.choices or answer.usage is None or self._include_usage:
            return data if answer.choices is not None else with_choices(data)
        return None

    def _report(self, usage: Usage) -> bytes:
        return usage_chunk(self._chunk, usage)

    def _see_whole(self, body: bytes) -> None:
        answer = decode_answer(body)
        if not answer.choices:
            raise ValueError("it has no choices")
        self._note(answer)

    def _note(self, answer: wire.Answer) -> None:
        seen = self.observation
        for choice in answer.choices or ():
            if choice.text:
                seen.deltas += 1
                seen.size += len(choice.text)
            if choice.finish_reason:
                seen.finish_reasons[choice.index] = finish_reason(choice.finish_reason)
        if answer.usage is not None:
            seen.usage = read_usage(answer.usage, answer.timings)
        if answer.model:
            seen.response_model = answer.model
