"""The texts of a request, read and replaced: in its body, where every other byte stays, and in its neutral form.

Text is every string of the body that is not one of the known names, ids, addresses and settings: what nobody knows is
taken for text. Arguments of tool calls are free JSON, of which all strings are text, names of members and numbers too.
Definitions of tools, schemas and base64 are no text.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import Foreign, Image, Message, Part, Text, Thinking, ToolCall, ToolResult
from tokenworks.core.request import Conversation, Embeddings, Prompts, Request, Rerank

Edit = Callable[[str], str]

NO_TEXT = frozenset(
    {
        *("model", "models", "provider", "role", "type", "id", "object", "name", "status", "phase", "detail"),
        *("call_id", "tool_call_id", "tool_use_id", "file_id", "previous_response_id", "conversation", "container"),
        *("signature", "thought_signature", "encrypted_content", "cache_control", "citations", "media_type"),
        *("mime_type", "format"),
        *("url", "image_url", "file_url", "file_data", "b64_json", "webhook", "webhook_completed"),
        *("tools", "functions", "tool_choice", "function_call", "response_format", "output_format", "output_config"),
        *("stop", "stop_sequences", "stop_sequence", "service_tier", "encoding_format", "encoding", "input_type"),
        *("reasoning_effort", "include", "truncation", "truncate", "modalities", "grammar", "logit_bias", "betas"),
        *("prompt_cache_key", "prompt_cache_retention", "context_management", "mcp_servers", "template"),
    }
)
"""Members whose values, and all that is in them, are no text."""
FREE = frozenset({"arguments", "variables"})
"""Members whose values are free JSON, or a string of it."""
_TOOL_INPUT = "input"
"""Below the top of a body an object of that name is free JSON, too."""

_DEEP = 2
"""Where content lies in a body, at least."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_BASE64 = re.compile(rb'"[A-Za-z0-9+/=_-]{512,}"')
"""Longer than any key: that one is to be found."""
_DATA_URL = re.compile(rb'"data:[^",]*;base64,')
_NUMBERS = re.compile(rb"-?[0-9]")
_DECODE = msgspec.json.Decoder(str).decode
_ENCODE = msgspec.json.Encoder().encode


class _Level:
    """An object or an array that is open. `text`, `free`: whether strings in it are."""

    __slots__ = ("free", "in_object", "key", "text")

    def __init__(self, in_object: bool, text: bool, free: bool) -> None:
        self.in_object = in_object
        self.text = text
        self.free = free
        self.key: str | None = None
        """Of the member whose value is next; None: its name is."""


def edited_body(body: bytes, edit: Edit) -> bytes:
    """A JSON body with its texts as `edit` gives them; the very same bytes when that changes none."""
    return _edited(body, edit, free=False)


def edited_json(text: str, edit: Edit) -> str:
    """The same for free JSON. What is no JSON is one text."""
    if not text:
        return text
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return edit(text)
    return _edited(text.encode(), edit, free=True).decode()


def _edited(body: bytes, edit: Edit, *, free: bool, depth: int = 0) -> bytes:
    out: list[bytes] = []
    copied = 0
    levels = [_Level(False, True, free)]
    for token in _TOKEN.finditer(body):
        level, first = levels[-1], body[token.start()]
        if first in b"{[":
            text, inside = _inside(level, first == 0x7B, depth + len(levels))
            levels.append(_Level(first == 0x7B, text, inside))
        elif first in b"}]":
            levels.pop()
            levels[-1].key = None if levels[-1].in_object else levels[-1].key
        elif first == 0x2C:  # a comma
            level.key = None if level.in_object else level.key
        elif first != 0x3A:  # a colon
            is_name = level.in_object and level.key is None
            new = _value(token[0], level, edit, is_name=is_name)
            if is_name:
                level.key = _text(token[0])
            if new is not None:
                out += (body[copied : token.start()], new)
                copied = token.end()
        if not levels:
            break
    return b"".join([*out, body[copied:]]) if out else body


def _inside(level: _Level, is_object: bool, depth: int) -> tuple[bool, bool]:
    key = level.key
    free = level.free or key in FREE or (is_object and key == _TOOL_INPUT and depth > 2)
    return free or (level.text and key not in NO_TEXT), free


def _value(token: bytes, level: _Level, edit: Edit, *, is_name: bool) -> bytes | None:
    """What stands in its place; None: itself."""
    if token[:1] != b'"':
        if not level.free or is_name or not _NUMBERS.match(token):
            return None
        text = token.decode()
        return None if (new := edit(text)) == text else _ENCODE(new)
    if is_name and not level.free:
        return None
    if not level.free and (not level.text or level.key in NO_TEXT or _is_binary(token)):
        return None
    text = _text(token)
    new = edited_json(text, edit) if not is_name and level.key in FREE else edit(text)
    return None if new == text else _ENCODE(new)


def _is_binary(token: bytes) -> bool:
    return _BASE64.fullmatch(token) is not None or _DATA_URL.match(token) is not None


def _text(token: bytes) -> str:
    try:
        return _DECODE(token)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidRequest("The body has a string that is no Unicode text.", code="invalid_json") from None


def edited_request(request: Request, edit: Edit) -> Request:
    """Body and neutral form, edited alike; the request itself when nothing is changed."""
    body = edited_body(request.body, edit) if request.body else b""
    task = _task(request.task, edit)
    user = None if request.user is None else edit(request.user)
    metadata = {name: edit(value) for name, value in request.metadata.items()}
    options = {name: value if name in NO_TEXT else _option(value, edit) for name, value in request.options.items()}
    if (body, task, user, metadata) == (request.body, request.task, request.user, request.metadata):
        return request
    return replace(
        request,
        body=body,
        task=task,
        user=user,
        metadata=metadata,
        options=options,
        ignored=list(request.ignored),
        own=list(request.own),
    )


def has_tokens(request: Request) -> bool:
    """Whether some of its text comes as ids of tokens, which nobody here can read."""
    task = request.task
    texts = task.prompts if isinstance(task, Prompts) else task.inputs if isinstance(task, Embeddings) else []
    return any(not isinstance(each, str) for each in texts)


def _task(task: Any, edit: Edit) -> Any:
    match task:
        case Conversation():
            return replace(task, messages=[_message(message, edit) for message in task.messages])
        case Prompts():
            suffix = None if task.suffix is None else edit(task.suffix)
            return replace(task, prompts=[_input(each, edit) for each in task.prompts], suffix=suffix)
        case Embeddings():
            return replace(task, inputs=[_input(each, edit) for each in task.inputs])
        case Rerank():
            return replace(task, query=edit(task.query), documents=[edit(each) for each in task.documents])
    raise TypeError(f"no texts are known of a {type(task).__name__}")


def _input(text: str | list[int], edit: Edit) -> str | list[int]:
    return edit(text) if isinstance(text, str) else text


def _message(message: Message, edit: Edit) -> Message:
    return replace(message, parts=[_part(part, edit) for part in message.parts])


def _part(part: Part, edit: Edit) -> Any:
    match part:
        case Text():
            return replace(part, text=edit(part.text))
        case Thinking():
            return replace(part, text=edit(part.text), summary=[edit(each) for each in part.summary])
        case ToolCall():
            return replace(part, arguments=edited_json(part.arguments, edit))
        case ToolResult():
            return replace(part, content=[_part(each, edit) for each in part.content])
        case Foreign():
            return replace(part, raw=_edited(part.raw, edit, free=False, depth=_DEEP))
        case Image():
            return part


def _option(value: Any, edit: Edit) -> Any:
    """What only the caller's own protocol knows: JSON, or what was read of it."""
    match value:
        case str():
            return edit(value)
        case bytes():
            return edited_body(value, edit)
        case msgspec.Raw():
            return msgspec.Raw(edited_body(bytes(value), edit))
        case list():
            return [_option(each, edit) for each in value]
        case dict():
            return {name: each if name in NO_TEXT else _option(each, edit) for name, each in value.items()}
    return value
