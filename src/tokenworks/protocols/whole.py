"""Protocols whose answers are always whole (vectors, rankings): what they share."""

from abc import ABC, abstractmethod
from collections.abc import Collection

from tokenworks.core.errors import InvalidRequest, TokenworksError, UpstreamBroken
from tokenworks.core.events import FinishReason
from tokenworks.core.request import Request
from tokenworks.protocols.base import Observation, StreamReader, StreamWriter, bearer

NOT_STREAMED = "answers of this protocol are never streamed"


def refuse_stream(stream: bool | None) -> None:
    """InvalidRequest when a stream is asked for."""
    if stream:
        raise InvalidRequest("This endpoint does not stream: leave 'stream' out or set it to false.", param="stream")


class WholeOnly:
    """The part of a codec that such a protocol does not have."""

    stream_content_type = b"application/json"
    stream_comment = b""
    headers = staticmethod(bearer)

    def stream_writer(self, request: Request, response_id: str, created: int) -> StreamWriter:
        raise NotImplementedError(NOT_STREAMED)

    def stream_reader(self, quirks: Collection[str] = ()) -> StreamReader:
        raise NotImplementedError(NOT_STREAMED)

    def encode_stream_error(self, error: TokenworksError) -> bytes:
        raise NotImplementedError(NOT_STREAMED)


class WholeRelay(ABC):
    """Forwards an answer as it came and watches it."""

    def __init__(self, request: Request, observation: Observation) -> None:
        self.observation = observation
        self._request = request

    @abstractmethod
    def _see_whole(self, body: bytes) -> None:
        """Watch a complete answer. ValueError when it is not one."""

    def whole(self, body: bytes) -> bytes:
        try:
            self._see_whole(body)
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's answer is not valid: {error}") from error
        self.observation.finish_reasons[0] = FinishReason.STOP
        return body

    def feed(self, chunk: bytes) -> bytes:
        raise NotImplementedError(NOT_STREAMED)

    def close(self) -> bytes:
        raise NotImplementedError(NOT_STREAMED)
