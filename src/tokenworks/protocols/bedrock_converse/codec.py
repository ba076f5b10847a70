"""The codec object: this protocol's verbs under the names of protocols.base.Codec."""

from collections.abc import Collection
from urllib.parse import quote

from tokenworks.core.request import Conversation, Request
from tokenworks.protocols.base import Codec, bearer
from tokenworks.protocols.bedrock_converse import errors, frames, requests, responses, stream
from tokenworks.protocols.called import CalledOnly


class BedrockConverse(CalledOnly):
    name = requests.NAME
    path = "/model/{model}/converse"
    tasks: tuple[type, ...] = (Conversation,)
    shortest_frame = frames.SHORTEST_MESSAGE

    headers = staticmethod(bearer)
    encode_request = staticmethod(requests.encode_request)
    read_response = staticmethod(responses.read_response)
    read_error = staticmethod(errors.read_error)

    def path_of(self, request: Request, model: str, *, stream: bool) -> str:
        return f"/model/{quote(model, safe='')}/converse{'-stream' if stream else ''}"

    def stream_reader(self, quirks: Collection[str] = ()) -> stream.StreamReader:
        return stream.StreamReader(quirks)


CODEC: Codec = BedrockConverse()
