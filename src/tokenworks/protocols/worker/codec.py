"""The codec object: only the direction of calling it. Nobody but the gateway speaks this protocol, to workers."""

from collections.abc import Collection

from tokenworks.core.errors import TokenworksError
from tokenworks.core.events import Event
from tokenworks.core.request import Conversation, Embeddings, Prompts, Request, Rerank
from tokenworks.protocols.base import Codec, Observation, Relay, StreamWriter, bearer
from tokenworks.protocols.openai_chat.errors import read_error
from tokenworks.protocols.worker import framing, requests, stream, types

ONLY_CALLED = "the worker protocol is called, not served to callers"


class Worker:
    name = "worker"
    path = "/generate"
    """Under an upstream's base URL, which ends in `types.PREFIX`."""
    tasks: tuple[type, ...] = (Conversation, Prompts, Embeddings, Rerank)
    stream_content_type = types.FRAMES
    stream_comment = b""
    shortest_frame = framing.SHORTEST_FRAME

    headers = staticmethod(bearer)
    encode_request = staticmethod(requests.encode_request)
    read_response = staticmethod(stream.read_response)
    read_error = staticmethod(read_error)

    def stream_reader(self, quirks: Collection[str] = ()) -> stream.StreamReader:
        return stream.StreamReader(quirks)

    def decode_request(self, body: bytes) -> Request:
        raise NotImplementedError(ONLY_CALLED)

    def rewrite_request(self, request: Request, model: str) -> bytes:
        raise NotImplementedError(ONLY_CALLED)

    def passthrough(self, request: Request, observation: Observation) -> Relay:
        raise NotImplementedError(ONLY_CALLED)

    def stream_writer(self, request: Request, response_id: str, created: int) -> StreamWriter:
        raise NotImplementedError(ONLY_CALLED)

    def encode_response(self, request: Request, events: list[Event], response_id: str, created: int) -> bytes:
        raise NotImplementedError(ONLY_CALLED)

    def encode_error(self, error: TokenworksError) -> bytes:
        raise NotImplementedError(ONLY_CALLED)

    def encode_stream_error(self, error: TokenworksError) -> bytes:
        raise NotImplementedError(ONLY_CALLED)

    def response_id(self, request_id: str) -> str:
        raise NotImplementedError(ONLY_CALLED)


CODEC: Codec = Worker()
