"""The codec object: this protocol's verbs under the names of protocols.base.Codec."""

from tokenworks.core.request import Embeddings, Request
from tokenworks.protocols.allowances import openai_headers
from tokenworks.protocols.base import Codec, Observation
from tokenworks.protocols.openai_chat import errors
from tokenworks.protocols.openai_embeddings import requests, responses
from tokenworks.protocols.whole import WholeOnly


class OpenAIEmbeddings(WholeOnly):
    name = requests.NAME
    path = "/embeddings"
    tasks: tuple[type, ...] = (Embeddings,)
    repeatable = True

    decode_request = staticmethod(requests.decode_request)
    encode_request = staticmethod(requests.encode_request)
    rewrite_request = staticmethod(requests.rewrite_request)
    encode_response = staticmethod(responses.encode_response)
    read_response = staticmethod(responses.read_response)
    encode_error = staticmethod(errors.encode_error)
    allowance_headers = staticmethod(openai_headers)
    read_error = staticmethod(errors.read_error)

    def passthrough(self, request: Request, observation: Observation) -> responses.Passthrough:
        return responses.Passthrough(request, observation)

    def response_id(self, request_id: str) -> str:
        return f"embd-{request_id}"


CODEC: Codec = OpenAIEmbeddings()
