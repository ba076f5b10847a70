"""The codec object: this protocol's verbs under the names of protocols.base.Codec."""

from collections.abc import Collection

from tokenworks.core.request import Prompts, Request
from tokenworks.protocols.allowances import openai_headers
from tokenworks.protocols.base import Codec, Observation, StreamWriter, bearer
from tokenworks.protocols.openai_chat import errors
from tokenworks.protocols.openai_completions import requests, responses, stream


class OpenAICompletions:
    name = requests.NAME
    path = "/completions"
    tasks: tuple[type, ...] = (Prompts,)
    repeatable = True
    stream_content_type = b"text/event-stream; charset=utf-8"
    stream_comment = b": keep-alive\n\n"
    padding = b" \n"

    decode_request = staticmethod(requests.decode_request)
    headers = staticmethod(bearer)
    encode_request = staticmethod(requests.encode_request)
    rewrite_request = staticmethod(requests.rewrite_request)
    encode_response = staticmethod(responses.encode_response)
    read_response = staticmethod(responses.read_response)
    encode_error = staticmethod(errors.encode_error)
    allowance_headers = staticmethod(openai_headers)
    encode_stream_error = staticmethod(errors.encode_stream_error)
    read_error = staticmethod(errors.read_error)

    def stream_writer(self, request: Request, response_id: str, created: int) -> StreamWriter:
        return stream.StreamWriter(request, response_id, created)

    def stream_reader(self, quirks: Collection[str] = ()) -> stream.StreamReader:
        return stream.StreamReader(quirks)

    def passthrough(self, request: Request, observation: Observation) -> stream.Passthrough:
        return stream.Passthrough(request, observation)

    def response_id(self, request_id: str) -> str:
        return f"cmpl-{request_id}"


CODEC: Codec = OpenAICompletions()
