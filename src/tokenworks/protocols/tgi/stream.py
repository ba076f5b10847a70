"""Streams of TGI: `data:` lines without a terminator; the last chunk has the whole text and the details."""

from typing import Any

import msgspec

from tokenworks.core.events import Event, Failed, Finished, ReasoningDelta, Started, TextDelta
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.base import Observation
from tokenworks.protocols.chunks import ChunkReader, ChunkRelay, payload
from tokenworks.protocols.tgi import types as wire
from tokenworks.protocols.tgi.errors import read_stream_error
from tokenworks.protocols.tgi.responses import (
    Summary,
    decode_answer,
    encode_answer,
    encode_tokens,
    finish_reason,
    read_logprobs,
    read_usage,
    token,
)

_DECODER = msgspec.json.Decoder(wire.Chunk)
_MEMBERS: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])
_ENCODE = msgspec.json.Encoder().encode


def _decode(data: bytes) -> wire.Chunk:
    """ValueError when it is not one."""
    try:
        chunk = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if chunk.token is None and chunk.error is None:
        raise ValueError("a chunk has neither a token nor an error")
    return chunk


class StreamReader(ChunkReader):
    def _read(self, data: bytes) -> list[Event]:
        chunk = _decode(data)
        if chunk.error is not None:
            return [Failed(read_stream_error(chunk.error, chunk.error_type))]
        events = self._start("", "")
        if chunk.token is not None and not chunk.token.special and chunk.token.text:
            top = None if chunk.top_tokens is None else [chunk.top_tokens]
            events.append(TextDelta(chunk.token.text, logprobs=read_logprobs([chunk.token], top)))
        if chunk.details is not None:
            if usage := read_usage(chunk.details):
                events.append(self._report(usage))
            events.append(Finished(finish_reason(chunk.details.finish_reason)))
        elif chunk.generated_text is not None:
            events.append(Finished(finish_reason("")))
        return events


class StreamWriter:
    """Events -> chunks. The end is told by a special token without text, when all of it is known."""

    def __init__(self, request: Request, response_id: str, created: int) -> None:
        self._summary = Summary(request)
        self._top = request.top_logprobs > 0
        self._index = 0

    def feed(self, event: Event) -> bytes:
        if isinstance(event, Started) or getattr(event, "index", 0) != 0:
            return b""
        self._summary.add(event)
        if not isinstance(event, TextDelta | ReasoningDelta):
            return b""
        return b"".join([self._chunk(one, others) for one, others in encode_tokens(event)])

    def close(self) -> bytes:
        end = {"generated_text": self._summary.text(), "details": self._summary.details()}
        return self._chunk(token("", None, special=True), None, end)

    def _chunk(
        self, one: dict[str, Any], others: list[dict[str, Any]] | None, end: dict[str, Any] | None = None
    ) -> bytes:
        self._index += 1
        body = {"index": self._index, "token": one}
        if self._top and others:
            body["top_tokens"] = others
        return b"data:" + _ENCODE(body | (end or {"generated_text": None, "details": None})) + b"\n\n"


class Passthrough(ChunkRelay):
    """Forwards chunks as they came; the last one, which ends the answer, waits until the attempt is settled.

    We ask for more details than the caller did, to count; what it did not ask for is taken out again.
    """

    terminator = b""

    def __init__(self, request: Request, observation: Observation) -> None:
        super().__init__(request, observation)
        self._request = request
        self._last = b""

    def close(self) -> bytes:
        return super().close() + self._last

    def conclude(self, usage: Usage, note: str) -> bytes:
        return self._last

    def _forward(self, block: bytes) -> bytes:
        data = payload(block)
        if data is None or self._see(data) is None:
            return b""
        return block + b"\n\n"

    def _see(self, data: bytes) -> bytes | None:
        chunk, seen = _decode(data), self.observation
        if chunk.error is not None:
            raise read_stream_error(chunk.error, chunk.error_type)
        if chunk.token is not None and not chunk.token.special:
            seen.deltas += 1
        if chunk.details is None and chunk.generated_text is None:
            return data
        seen.finish_reasons[0] = finish_reason(chunk.details.finish_reason if chunk.details else "")
        if chunk.details is not None:
            seen.usage = read_usage(chunk.details)
        if not self._request.options.get("details"):
            data = _ENCODE(_MEMBERS.decode(data) | {"details": None})
        self._last = b"data:" + data + b"\n\n"
        return None

    def whole(self, body: bytes) -> bytes:
        super().whole(body)
        answers = msgspec.json.decode(body)
        answer: dict[str, Any] = answers[0] if isinstance(answers, list) else answers
        if not self._request.options.get("details"):
            del answer["details"]
        elif not self._request.options.get("prefill"):
            answer["details"]["prefill"] = []
        return encode_answer(self._request, answer)

    def _see_whole(self, body: bytes) -> None:
        answer, seen = decode_answer(body), self.observation
        if answer.details is None:
            raise ValueError("it has no details, so nobody knows how it finished")
        seen.deltas += answer.details.generated_tokens
        seen.usage = read_usage(answer.details)
        seen.finish_reasons[0] = finish_reason(answer.details.finish_reason)
