"""The codec object: this protocol's verbs under the names of protocols.base.Codec."""

from collections.abc import Collection

from tokenworks.core.request import Conversation, Request
from tokenworks.protocols.allowances import anthropic_headers
from tokenworks.protocols.anthropic_messages import blocks, errors, requests, responses, stream, versions, writer
from tokenworks.protocols.base import Codec, Observation


class AnthropicMessages:
    name = blocks.NAME
    path = "/messages"
    tasks: tuple[type, ...] = (Conversation,)
    stream_content_type = b"text/event-stream; charset=utf-8"
    stream_comment = b'event: ping\ndata: {"type":"ping"}\n\n'

    padding = b" \n"
    prefilled = True
    repeatable = True

    decode_request = staticmethod(requests.decode_request)
    read_headers = staticmethod(versions.read_headers)
    encode_request = staticmethod(requests.encode_request)
    rewrite_request = staticmethod(requests.rewrite_request)
    headers = staticmethod(versions.credential_headers)
    upstream_headers = staticmethod(versions.upstream_headers)
    encode_response = staticmethod(responses.encode_response)
    read_response = staticmethod(responses.read_response)
    encode_error = staticmethod(errors.encode_error)
    allowance_headers = staticmethod(anthropic_headers)
    encode_stream_error = staticmethod(errors.encode_stream_error)
    error_status = staticmethod(errors.error_status)
    read_error = staticmethod(errors.read_error)

    def stream_writer(self, request: Request, response_id: str, created: int) -> writer.StreamWriter:
        return writer.StreamWriter(request, response_id, created)

    def stream_reader(self, quirks: Collection[str] = ()) -> stream.StreamReader:
        return stream.StreamReader(quirks)

    def passthrough(self, request: Request, observation: Observation) -> stream.Passthrough:
        return stream.Passthrough(request, observation)

    def response_id(self, request_id: str) -> str:
        return f"msg_{request_id}"


CODEC: Codec = AnthropicMessages()
