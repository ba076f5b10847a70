"""`GET /v1/models` in Anthropic's shape (https://platform.claude.com/docs/en/api/models)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec

from tokenworks.core.errors import InvalidRequest

_ENCODE = msgspec.json.Encoder().encode
_PAGE, _LARGEST_PAGE = 20, 1000
_NO = {"supported": False}
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Model:
    """`created` in Unix seconds; `capabilities` by our own names."""

    id: str
    created: int
    context_length: int | None
    max_output: int | None
    capabilities: Sequence[str]


def encode_model(model: Model) -> bytes:
    return _ENCODE(_body(model))


def encode_models(models: Sequence[Model], query: bytes) -> bytes:
    """One page of them. `query` is the URL's: `limit`, `after_id`, `before_id`."""
    asked = {name: values[-1] for name, values in parse_qs(query.decode("latin-1")).items()}
    limit = _limit(asked.get("limit"))
    ids = [model.id for model in models]
    if (before := asked.get("before_id")) is not None:
        end = _position(ids, before, "before_id")
        begin = max(end - limit, 0)
        more = begin > 0
    else:
        begin = _position(ids, asked["after_id"], "after_id") + 1 if "after_id" in asked else 0
        end = begin + limit
        more = end < len(models)
    page = [_body(model) for model in models[begin:end]]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return _ENCODE({"data": page, "has_more": more, "first_id": first, "last_id": last})


def _limit(text: str | None) -> int:
    if text is None:
        return _PAGE
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _LARGEST_PAGE):
        raise InvalidRequest(f"'limit' must be a number from 1 to {_LARGEST_PAGE}.", param="limit")
    return int(text)


def _position(ids: list[str], wanted: str, param: str) -> int:
    try:
        return ids.index(wanted)
    except ValueError:
        raise InvalidRequest(f"'{param}' is not the id of a model: {wanted!r}.", param=param) from None


def _body(model: Model) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": model.context_length,
        "max_tokens": model.max_output or model.context_length,
        "capabilities": _capabilities(set(model.capabilities)),
    }


def _capabilities(known: set[str]) -> dict[str, Any]:
    """Every one that the protocol names; those of its own servers we do not have."""
    thinks = {"supported": "reasoning" in known}
    return {
        "batch": {"supported": True},
        "citations": _NO,
        "code_execution": _NO,
        "context_management": _NO,
        "effort": {**thinks, **dict.fromkeys(_EFFORTS, thinks)},
        "image_input": {"supported": "vision" in known},
        "pdf_input": _NO,
        "server_tools": {**_NO, "code_execution": _NO, "web_search": _NO},
        "structured_outputs": {"supported": "json_schema" in known},
        "thinking": {**thinks, "types": {"adaptive": thinks, "enabled": thinks}},
    }
