"""Chat as TGI's own client reads it, served only: when the model is called `tgi`, which is how that client asks.

Its client fails on `[DONE]`, wants every member of every delta, one tool call as an object instead of a list, and a
fingerprint that is text. The rest is openai_chat's.
"""

from typing import Any

import msgspec

from tokenworks.core.errors import TokenworksError
from tokenworks.core.events import Event
from tokenworks.core.request import Request
from tokenworks.protocols.base import Codec
from tokenworks.protocols.chunks import DONE
from tokenworks.protocols.openai_chat import responses, stream
from tokenworks.protocols.openai_chat.codec import OpenAIChat
from tokenworks.protocols.tgi import errors

FINGERPRINT = "tokenworks"
_ENCODE = msgspec.json.Encoder().encode


class StreamWriter(stream.StreamWriter):
    def __init__(self, request: Request, response_id: str, created: int) -> None:
        super().__init__(request, response_id, created)
        self._head["system_fingerprint"] = FINGERPRINT
        self._calls: dict[tuple[int, int], dict[str, Any]] = {}

    def close(self) -> bytes:
        return super().close().removesuffix(DONE)

    def _chunk(
        self, index: int, delta: dict[str, Any], *, finish: str | None = None, logprobs: dict[str, Any] | None = None
    ) -> bytes:
        call = self._call(index, delta["tool_calls"][0]) if "tool_calls" in delta else None
        whole = {"role": "assistant", "content": None, **delta, "tool_calls": call}
        return super()._chunk(index, whole, finish=finish, logprobs=logprobs)

    def _call(self, index: int, part: dict[str, Any]) -> dict[str, Any]:
        """A part of a call with its id and its name, which others send only once."""
        first = self._calls.setdefault((index, part["index"]), part)
        return {
            "index": part["index"],
            "id": first.get("id") or "",
            "type": "function",
            "function": {
                "name": first["function"].get("name") if part is first else None,
                "arguments": part["function"]["arguments"],
            },
        }


def encode_response(request: Request, events: list[Event], response_id: str, created: int) -> bytes:
    body = msgspec.json.decode(responses.encode_response(request, events, response_id, created))
    return _ENCODE(body | {"system_fingerprint": FINGERPRINT})


class TGIChat(OpenAIChat):
    name = "tgi_chat"

    encode_response = staticmethod(encode_response)
    encode_error = staticmethod(errors.encode_error)
    encode_stream_error = staticmethod(errors.encode_stream_error)

    def error_status(self, error: TokenworksError) -> int:
        return errors.error_status(error)

    def stream_writer(self, request: Request, response_id: str, created: int) -> StreamWriter:
        return StreamWriter(request, response_id, created)


CODEC: Codec = TGIChat()
