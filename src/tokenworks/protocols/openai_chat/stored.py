"""Chat completions that are read again (`store: true`): what is kept of one, and how it is shown. Pure: who keeps it is
not said here."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest, TokenworksError
from tokenworks.core.events import Event, Failed, Finished, UsageReport
from tokenworks.core.request import Request
from tokenworks.protocols.openai_chat.responses import encode_response
from tokenworks.protocols.openai_chat.stream import StreamReader
from tokenworks.protocols.sse import Splitter, data_of
from tokenworks.protocols.validation import top_level

OBJECT = "chat.completion"
MOST_METADATA, LONGEST_NAME, LONGEST_VALUE = 16, 64, 512
_ENCODE = msgspec.json.Encoder().encode


class _Head(msgspec.Struct):
    id: str
    created: int = 0


class _Kept(msgspec.Struct):
    id: str
    created: int
    model: str
    metadata: dict[str, str] | None = None


class _Asked(msgspec.Struct):
    messages: list[dict[str, Any]]


class _Update(msgspec.Struct, forbid_unknown_fields=True):
    metadata: dict[str, str] | None


_HEAD = msgspec.json.Decoder(_Head).decode
_KEPT = msgspec.json.Decoder(_Kept).decode
_ASKED = msgspec.json.Decoder(_Asked).decode
_UPDATE = msgspec.json.Decoder(_Update)
_MESSAGES = msgspec.json.Decoder(list[dict[str, Any]]).decode


def kept(request: Request, whole: bytes) -> bytes:
    """The answer as it is read again: with its metadata. ValueError when it is none."""
    members = top_level(whole)
    _HEAD(whole)
    return _ENCODE(members | {"model": request.model, "metadata": request.metadata or {}})


def folded(request: Request, stream: bytes) -> bytes | None:
    """The whole answer that a stream told; None for one that did not come to its end."""
    reader, splitter = StreamReader(), Splitter()
    blocks = splitter.feed(stream) + splitter.close()
    datas = [data for block in blocks if (data := data_of(block)) is not None]
    try:
        head = next(_HEAD(data) for data in datas if data != b"[DONE]")
        events: list[Event] = [*reader.feed(stream), *reader.close()]
    except (StopIteration, msgspec.MsgspecError, TokenworksError):
        return None
    kinds = {type(event) for event in events}
    if Finished not in kinds or Failed in kinds:
        return None
    whole = encode_response(request, events, head.id, head.created)
    return whole if UsageReport in kinds else _without(whole, "usage")


def about(body: bytes) -> tuple[str, int, str, Mapping[str, str]]:
    """(id, created, model, metadata)"""
    found = _KEPT(body)
    return found.id, found.created, found.model, found.metadata or {}


def asked_messages(request: Request) -> bytes:
    """What it was asked, as a list."""
    return _ENCODE(_ASKED(request.body).messages)


def require_metadata(metadata: Mapping[str, str]) -> None:
    """InvalidRequest for more than is kept."""
    wrong = len(metadata) > MOST_METADATA or any(
        len(name) > LONGEST_NAME or len(value) > LONGEST_VALUE for name, value in metadata.items()
    )
    if wrong:
        raise InvalidRequest(
            f"'metadata' takes at most {MOST_METADATA} pairs, names of at most {LONGEST_NAME} and values of at most "
            f"{LONGEST_VALUE} characters.",
            param="metadata",
        )


def decode_update(body: bytes) -> dict[str, str]:
    """The metadata that it shall have from now on."""
    try:
        metadata = _UPDATE.decode(body).metadata or {}
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"Only 'metadata' can be changed: {error}.", param="metadata") from None
    require_metadata(metadata)
    return metadata


def updated(body: bytes, metadata: Mapping[str, str]) -> bytes:
    return _ENCODE(top_level(body) | {"metadata": metadata})


def _without(whole: bytes, name: str) -> bytes:
    """Where the caller did not ask for it, a stream does not tell it."""
    members = top_level(whole)
    del members[name]
    return _ENCODE(members)


def unstored(whole: bytes) -> bytes:
    """The answer of a caller who must hear that it cannot be read again."""
    return _ENCODE(top_level(whole) | {"store": False})


def page(bodies: Sequence[bytes], *, more: bool) -> bytes:
    names = [_HEAD(body).id for body in bodies]
    return _page([msgspec.Raw(body) for body in bodies], names, more=more)


def deleted(id: str) -> bytes:
    return _ENCODE({"id": id, "object": f"{OBJECT}.deleted", "deleted": True})


def message_page(messages: bytes, id: str, *, order: str, limit: int, after: str | None) -> bytes:
    """A page of what completion `id` was asked. InvalidRequest when there is no message `after`."""
    every = [_message(message, f"{id}-{index}") for index, message in enumerate(_MESSAGES(messages))]
    if order == "desc":
        every.reverse()
    names = [message["id"] for message in every]
    if after is not None and after not in names:
        raise InvalidRequest(f"There is no message {after!r} to go on from.", param="after")
    begin = 0 if after is None else names.index(after) + 1
    end = begin + limit
    return _page(every[begin:end], names[begin:end], more=end < len(every))


def _message(message: dict[str, Any], id: str) -> dict[str, Any]:
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    text = "".join(str(part.get("text", "")) for part in parts) if parts is not None else content
    return {**message, "id": id, "content": text, "content_parts": parts}


def _page(data: list[Any], names: list[str], *, more: bool) -> bytes:
    ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    return _ENCODE({"object": "list", "data": data, **ends, "has_more": more})
