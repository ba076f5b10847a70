"""The codec objects: one to call and to serve `/`, and what answers on the other two paths."""

from collections.abc import Collection
from dataclasses import replace

from tokenworks.core.errors import TokenworksError
from tokenworks.core.request import Prompts, Request
from tokenworks.protocols.base import Codec, Observation, bearer
from tokenworks.protocols.tgi import embed, errors, requests, responses, stream


class TGI:
    """On `/`, where its clients also send texts to be embedded: what says nothing about generating is that."""

    name = requests.NAME
    path = "/"
    tasks: tuple[type, ...] = (Prompts,)
    stream_content_type = b"text/event-stream"
    stream_comment = b": keep-alive\n\n"

    headers = staticmethod(bearer)
    encode_request = staticmethod(requests.encode_request)
    rewrite_request = staticmethod(requests.rewrite_request)
    encode_response = staticmethod(responses.encode_response)
    read_response = staticmethod(responses.read_response)
    encode_error = staticmethod(errors.encode_error)
    encode_stream_error = staticmethod(errors.encode_stream_error)
    read_error = staticmethod(errors.read_error)

    def decode_request(self, body: bytes) -> Request:
        if embed.is_meant(body):
            return embed.decode_request(body)
        return requests.decode_request(body)

    def error_status(self, error: TokenworksError) -> int:
        return errors.error_status(error)

    def stream_writer(self, request: Request, response_id: str, created: int) -> stream.StreamWriter:
        return stream.StreamWriter(request, response_id, created)

    def stream_reader(self, quirks: Collection[str] = ()) -> stream.StreamReader:
        return stream.StreamReader(quirks)

    def passthrough(self, request: Request, observation: Observation) -> stream.Passthrough:
        return stream.Passthrough(request, observation)

    def response_id(self, request_id: str) -> str:
        return request_id


class Generate(TGI):
    """`/generate`: never a stream, and the answer is not in a list."""

    def decode_request(self, body: bytes) -> Request:
        request = requests.decode_request(body)
        return replace(request, stream=False, options=request.options | {"bare": True})


class GenerateStream(TGI):
    """`/generate_stream`: always a stream."""

    def decode_request(self, body: bytes) -> Request:
        return replace(requests.decode_request(body), stream=True)


CODEC: Codec = TGI()
GENERATE: Codec = Generate()
GENERATE_STREAM: Codec = GenerateStream()
