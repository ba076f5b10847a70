"""The codec object: this protocol's verbs under the names of protocols.base.Codec.

A stream is got from an address in the created prediction, so one exchange of bytes is never the whole of it: nothing
passes through, and who calls such a host makes two calls (`stream_url`).
"""

from collections.abc import Collection

import msgspec

from tokenworks.core.errors import TokenworksError
from tokenworks.core.request import Conversation, Prompts, Request
from tokenworks.protocols.base import Codec, Observation, Relay
from tokenworks.protocols.openai_chat.errors import read_error
from tokenworks.protocols.replicate import errors, requests, responses, stream

TWO_CALLS = "a prediction and its stream are two exchanges: nothing can pass through"


class _Created(msgspec.Struct):
    urls: dict[str, str] = {}


def stream_url(body: bytes) -> str:
    """Where a created prediction streams. ValueError when it does not."""
    try:
        return msgspec.json.decode(body, type=_Created).urls["stream"]
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
        raise ValueError(f"the prediction has no stream: {error}") from None


class Replicate:
    name = requests.NAME
    path = "/predictions"
    tasks: tuple[type, ...] = (Conversation, Prompts)
    stream_content_type = b"text/event-stream"
    stream_comment = b": keep-alive\n\n"

    def headers(self, credential: str) -> dict[str, str]:
        """Creation waits for the prediction's end, a minute at most."""
        return {"authorization": f"Bearer {credential}", "prefer": "wait"}

    decode_request = staticmethod(requests.decode_request)
    encode_request = staticmethod(requests.encode_request)
    encode_response = staticmethod(responses.encode_response)
    read_response = staticmethod(responses.read_response)
    encode_error = staticmethod(errors.encode_error)
    read_error = staticmethod(read_error)
    stream_url = staticmethod(stream_url)

    def encode_stream_error(self, error: TokenworksError) -> bytes:
        return stream.encode_failure(error, ("0:0", "0:1"))

    def error_status(self, error: TokenworksError) -> int:
        return errors.error_status(error)

    def stream_writer(self, request: Request, response_id: str, created: int) -> stream.StreamWriter:
        return stream.StreamWriter(request, response_id, created)

    def stream_reader(self, quirks: Collection[str] = ()) -> stream.StreamReader:
        return stream.StreamReader(quirks)

    def rewrite_request(self, request: Request, model: str) -> bytes:
        raise NotImplementedError(TWO_CALLS)

    def passthrough(self, request: Request, observation: Observation) -> Relay:
        raise NotImplementedError(TWO_CALLS)

    def response_id(self, request_id: str) -> str:
        return request_id


CODEC: Codec = Replicate()
