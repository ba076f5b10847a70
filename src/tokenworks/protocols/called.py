"""Protocols that are called and never served: the part of a codec that they do not have."""

from tokenworks.core.errors import TokenworksError
from tokenworks.core.events import Event
from tokenworks.core.request import Request
from tokenworks.protocols.base import Observation, Relay, StreamWriter
from tokenworks.protocols.openai_chat import errors

NOT_SERVED = "this protocol is called, never served"


class CalledOnly:
    stream_content_type = b""
    stream_comment = b""

    def response_id(self, request_id: str) -> str:
        return request_id

    def decode_request(self, body: bytes) -> Request:
        raise NotImplementedError(NOT_SERVED)

    def stream_writer(self, request: Request, response_id: str, created: int) -> StreamWriter:
        raise NotImplementedError(NOT_SERVED)

    def encode_response(self, request: Request, events: list[Event], response_id: str, created: int) -> bytes:
        raise NotImplementedError(NOT_SERVED)

    def encode_error(self, error: TokenworksError) -> bytes:
        return errors.encode_error(error)

    def encode_stream_error(self, error: TokenworksError) -> bytes:
        raise NotImplementedError(NOT_SERVED)

    def rewrite_request(self, request: Request, model: str) -> bytes:
        raise NotImplementedError(NOT_SERVED)

    def passthrough(self, request: Request, observation: Observation) -> Relay:
        raise NotImplementedError(NOT_SERVED)
