"""What a stored response is made of, and how the next request continues it. Pure: who stores it is not said here.

A chain is a list of stored responses, oldest first, each the previous one of the next. `history(chain)` is the
conversation so far; `continue_from` puts it before a request's own input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tokenworks.core.request import Request
from tokenworks.protocols.openai_responses.requests import decode_request
from tokenworks.protocols.validation import top_level

_ENCODE = msgspec.json.Encoder().encode
_BODY = msgspec.json.Decoder(dict[str, Any])
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


def stored_response(request: Request, body: bytes, *, completed_at: int | None = None) -> StoredResponse:
    """From the request as the caller sent it (before `continue_from`) and the final response object."""
    response = _BODY.decode(body)
    if response.get("completed_at") is None and response["status"] == "completed":
        response["completed_at"] = completed_at
    return StoredResponse(
        id=response["id"],
        created_at=int(response["created_at"]),
        status=response["status"],
        model=response["model"],
        previous_response_id=request.options.get("previous_response_id"),
        body=_ENCODE(response),
        input_items=input_items(request, response["id"]),
    )


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
