"""The codec object: this protocol's verbs under the names of protocols.base.Codec."""

from collections.abc import Collection

from tokenworks.core.request import Conversation, Embeddings, Request
from tokenworks.protocols.base import Codec, bearer
from tokenworks.protocols.called import CalledOnly
from tokenworks.protocols.cohere import errors, requests, responses, stream


class Cohere(CalledOnly):
    name = requests.NAME
    path = "/chat"
    tasks: tuple[type, ...] = (Conversation, Embeddings)

    headers = staticmethod(bearer)
    encode_request = staticmethod(requests.encode_request)
    read_response = staticmethod(responses.read_response)
    read_error = staticmethod(errors.read_error)

    def path_of(self, request: Request, model: str, *, stream: bool) -> str:
        return "/embed" if isinstance(request.task, Embeddings) else self.path

    def stream_reader(self, quirks: Collection[str] = ()) -> stream.StreamReader:
        return stream.StreamReader(quirks)


CODEC: Codec = Cohere()
