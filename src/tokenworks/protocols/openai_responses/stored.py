"""What a stored response is made of, how it is shown again, and how the next request continues it. Pure: who stores
it is not said here.

A chain is a list of stored responses, oldest first, each the previous one of the next. `history(chain)` is the
conversation so far; `continue_from` puts it before a request's own input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest, TokenworksError
from tokenworks.core.request import Request
from tokenworks.protocols.openai_responses import types as wire
from tokenworks.protocols.openai_responses.requests import decode_request
from tokenworks.protocols.openai_responses.responses import Fold
from tokenworks.protocols.openai_responses.stream import encode_event
from tokenworks.protocols.sse import data_of
from tokenworks.protocols.validation import top_level

_ENCODE = msgspec.json.Encoder().encode
_BODY = msgspec.json.Decoder(dict[str, Any])
_PASSING = msgspec.json.Decoder(wire.PassingEvent)
_RESPONSE = msgspec.json.Decoder(wire.StoredBody)
_ITEM_ID = msgspec.json.Decoder(wire.Identified)
_ITEMS: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[msgspec.Raw])
_INPUT: msgspec.json.Decoder[str | list[msgspec.Raw] | None] = msgspec.json.Decoder(str | list[msgspec.Raw] | None)


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """`body` is the response object as the caller got it; `input_items` are those of its own request only."""

    id: str
    created_at: int
    status: str
    model: str
    previous_response_id: str | None
    body: bytes
    input_items: list[bytes]


def stored_response(request: Request, body: bytes) -> StoredResponse:
    """From the request as the caller sent it (before `continue_from`) and the final response object."""
    response = _RESPONSE.decode(body)
    return StoredResponse(
        id=response.id,
        created_at=int(response.created_at),
        status=response.status,
        model=response.model,
        previous_response_id=request.options.get("previous_response_id"),
        body=body,
        input_items=input_items(request, response.id),
    )


def changed(body: bytes, **members: Any) -> bytes:
    """The response object with other values of some members; the rest as it was written."""
    return _ENCODE(top_level(body) | members)


def completed(body: bytes, at: int) -> bytes:
    """A finished response says when, if it completed and does not say so yet."""
    response = _RESPONSE.decode(body)
    if response.status != "completed" or response.completed_at is not None:
        return body
    return changed(body, completed_at=at)


def status(body: bytes) -> str:
    return _RESPONSE.decode(body).status


def in_background(body: bytes) -> bool:
    return bool(_RESPONSE.decode(body).background)


def draft(request: Request, response_id: str, created: int, status: str) -> bytes:
    """The response object before there is any output."""
    return _ENCODE(_fold(request, response_id, created).begun(status))


def failed(request: Request, response_id: str, created: int, error: TokenworksError) -> bytes:
    return _ENCODE(_fold(request, response_id, created).failed(error))


def _fold(request: Request, response_id: str, created: int) -> Fold:
    return Fold(request, response_id, created, lambda kind, members: None)


ENDINGS = frozenset(f"response.{status}" for status in ("completed", "incomplete", "failed", "cancelled"))


def ended_response(block: bytes) -> bytes | None:
    """The response object of the event that ends a stream; None for any other event."""
    event = _event(block)
    return bytes(event.response) if event is not None and event.type in ENDINGS else None


def sequence_number(block: bytes) -> int:
    """-1 for what is no event of a response."""
    event = _event(block)
    return -1 if event is None else event.sequence_number


def terminal_event(body: bytes, sequence: int) -> bytes:
    """The event that ends the stream of this response."""
    return encode_event(f"response.{_RESPONSE.decode(body).status}", sequence, {"response": msgspec.Raw(body)})


def _event(block: bytes) -> wire.PassingEvent | None:
    data = data_of(block)
    return None if data is None else _PASSING.decode(data)


def input_items(request: Request, response_id: str) -> list[bytes]:
    """The request's own input as the API lists it: each item has an id and a type, text is a list of parts."""
    suffix = response_id.removeprefix("resp_")
    own = _own_input(request)
    return [_ENCODE(_listed(_BODY.decode(item), f"{suffix}_in{index}")) for index, item in enumerate(own)]


def _own_input(request: Request) -> list[msgspec.Raw]:
    given = _INPUT.decode(top_level(request.body).get("input", b"null"))
    if isinstance(given, str):
        return [msgspec.Raw(_ENCODE({"type": "message", "role": "user", "content": given}))]
    return given or []


_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def _listed(item: dict[str, Any], suffix: str) -> dict[str, Any]:
    kind = item.get("type") or ("message" if "role" in item else "item_reference")
    listed = {"id": f"{_PREFIXES.get(kind, 'item')}_{suffix}", "type": kind, **item}
    if kind == "message":
        listed.setdefault("status", "completed")
        if isinstance(listed.get("content"), str):
            listed["content"] = [_text(listed["role"], listed["content"])]
    elif kind in ("function_call", "function_call_output"):
        listed.setdefault("status", "completed")
    return listed


def _text(role: str, text: str) -> dict[str, Any]:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": []}
    return {"type": "input_text", "text": text}


def history(chain: Sequence[StoredResponse]) -> list[bytes]:
    """Every item of the conversation, what was said and what was answered, in its order."""
    items: list[bytes] = []
    for response in chain:
        items += response.input_items
        items += [bytes(raw) for raw in _ITEMS.decode(top_level(response.body)["output"])]
    return items


def continue_from(request: Request, previous_items: Sequence[bytes]) -> Request:
    """The request with the conversation so far before its own input. It then stands alone: no upstream is asked for a
    response that only we hold; its instructions are its own, as the API says. InvalidRequest as for any body."""
    members: dict[str, Any] = dict(top_level(request.body))
    members["input"] = [*map(msgspec.Raw, previous_items), *_own_input(request)]
    previous = members.pop("previous_response_id", None)
    continued = decode_request(_ENCODE(members))
    if previous is not None:
        continued.options["previous_response_id"] = msgspec.json.decode(previous)
    return continued


ORDERS = ("asc", "desc")


def item_page(items: Sequence[bytes], *, order: str, limit: int, after: str | None) -> bytes:
    """A page of input items; `after` is the last item of the page before. InvalidRequest when there is no such item."""
    ordered = list(items) if order == "asc" else list(reversed(items))
    ids = [_ITEM_ID.decode(item).id for item in ordered]
    if after is not None and after not in ids:
        raise InvalidRequest(f"There is no input item with the id '{after}'.", param="after")
    begin = 0 if after is None else ids.index(after) + 1
    end = begin + limit
    page = {
        "object": "list",
        "data": [msgspec.Raw(item) for item in ordered[begin:end]],
        "first_id": ids[begin] if ids[begin:end] else "",
        "last_id": ids[begin:end][-1] if ids[begin:end] else "",
        "has_more": end < len(ordered),
    }
    return _ENCODE(page)
