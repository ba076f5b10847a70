"""What a TGI server says besides answers: the bodies of `/info` and `/tokenize`. Pure."""

from collections.abc import Iterable
from typing import Annotated

import msgspec

from tokenworks import __version__
from tokenworks.protocols.validation import decode

LARGEST_STOP_LIST = 16
_ENCODE = msgspec.json.Encoder().encode


def info(model: str, *, context_length: int | None) -> bytes:
    """Members that describe the machine are null: a model of ours may run on several."""
    return _ENCODE(
        {
            "model_id": model,
            "model_sha": None,
            "model_dtype": None,
            "model_device_type": None,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": None,
            "max_best_of": 1,
            "max_stop_sequences": LARGEST_STOP_LIST,
            "max_input_tokens": None if context_length is None else context_length - 1,
            "max_total_tokens": context_length,
            "max_client_batch_size": None,
            "router": "tokenworks",
            "version": __version__,
            "sha": None,
            "docker_label": None,
        }
    )


class TokenizeRequest(msgspec.Struct):
    inputs: Annotated[str, msgspec.Meta(min_length=1)]
    add_special_tokens: bool = True


_TOKENIZE = msgspec.json.Decoder(TokenizeRequest)


def decode_tokenize(body: bytes) -> TokenizeRequest:
    """InvalidRequest naming the field."""
    return decode(_TOKENIZE, body)


def encode_tokenize_request(text: str) -> bytes:
    return _ENCODE(TokenizeRequest(text))


class _Token(msgspec.Struct):
    id: int
    text: str


_TOKENS = msgspec.json.Decoder(list[_Token])


def read_tokenize(body: bytes) -> list[tuple[int, str]]:
    """[(id, text)] of another server's answer. ValueError when it is none."""
    return [(token.id, token.text) for token in _TOKENS.decode(body)]


def encode_tokenize(tokens: Iterable[tuple[int, str]]) -> bytes:
    """`tokens` are (id, text) in order; the answer says where in the text each one stands, in characters."""
    listed, start = [], 0
    for number, text in tokens:
        listed.append({"id": number, "text": text, "start": start, "stop": start + len(text)})
        start += len(text)
    return _ENCODE(listed)
