"""Messages and their blocks, both ways."""

import re
from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import Foreign, Image, Message, Part, Role, Text, Thinking, ToolCall, ToolResult
from tokenworks.core.request import Request
from tokenworks.protocols.anthropic_messages import types as wire
from tokenworks.protocols.proofs import from_claude, is_claudes, to_claude
from tokenworks.protocols.validation import decode

NAME = "anthropic_messages"
BROKEN_ARGUMENTS = "INVALID_JSON"
"""The member under which arguments that are no JSON object are told, as Anthropic advises for them."""

_KIND = msgspec.json.Decoder(wire.Tagged)
_TEXT = msgspec.json.Decoder(wire.TextBlock)
_IMAGE = msgspec.json.Decoder(wire.ImageBlock)
_CALL = msgspec.json.Decoder(wire.ToolUseBlock)
_RESULT = msgspec.json.Decoder(wire.ToolResultBlock)
_THINKING = msgspec.json.Decoder(wire.ThinkingBlock)
_REDACTED = msgspec.json.Decoder(wire.RedactedThinkingBlock)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode
_NO_ID = re.compile(r"[^a-zA-Z0-9_-]")

# Reading.


def read_message(message: wire.InputMessage, where: str) -> Message:
    return Message(Role(message.role), read_content(message.content, f"{where}.content"))


def read_content(content: wire.Content, where: str) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)]
    return [_read_block(raw, f"{where}[{index}]") for index, raw in enumerate(content)]


def _read_block(raw: msgspec.Raw, where: str) -> Part:
    kind = decode(_KIND, raw, where).type
    match kind:
        case "text":
            text = decode(_TEXT, raw, where)
            return Text(text.text, cache_ttl=ttl(text.cache_control))
        case "image":
            return _read_image(raw, where)
        case "tool_use":
            call = decode(_CALL, raw, where)
            return ToolCall(call.id, call.name, _read_input(call.input, where), cache_ttl=ttl(call.cache_control))
        case "tool_result":
            return _read_result(raw, where)
        case "thinking":
            thought = decode(_THINKING, raw, where)
            return Thinking(thought.thinking, signature=thought.signature or None)
        case "redacted_thinking":
            return Thinking(encrypted=from_claude(decode(_REDACTED, raw, where).data))
        case _:
            return Foreign(NAME, kind, bytes(raw))


def _read_image(raw: msgspec.Raw, where: str) -> Image | Foreign:
    image = decode(_IMAGE, raw, where)
    source, cache_ttl = image.source, ttl(image.cache_control)
    match source.type:
        case "base64":
            if not source.data or not source.media_type:
                missing = f"{where}.source.{'media_type' if source.data else 'data'}"
                raise InvalidRequest(f"Missing required parameter: '{missing}'.", param=missing)
            place = f"{where}.source.data"
            return Image(data=source.data, media_type=source.media_type, cache_ttl=cache_ttl, where=place)
        case "url":
            if not source.url:
                raise InvalidRequest(f"Missing required parameter: '{where}.source.url'.", param=f"{where}.source.url")
            return Image(url=source.url, cache_ttl=cache_ttl, where=f"{where}.source.url")
        case _:
            return Foreign(NAME, "image", bytes(raw), images=1)


def _read_input(raw: msgspec.Raw, where: str) -> str:
    text = bytes(raw).decode()
    if not text.startswith("{"):
        raise InvalidRequest(f"Invalid value for '{where}.input': expected an object.", param=f"{where}.input")
    return text


def _read_result(raw: msgspec.Raw, where: str) -> ToolResult:
    result = decode(_RESULT, raw, where)
    parts = read_content(result.content, f"{where}.content") if result.content is not None else []
    content: list[Text | Image | Foreign] = []
    for index, part in enumerate(parts):
        if not isinstance(part, Text | Image | Foreign):
            place = f"{where}.content[{index}]"
            raise InvalidRequest(f"'{place}' is of a type that no tool result can hold.", param=place)
        content.append(part)
    return ToolResult(result.tool_use_id, content, bool(result.is_error), ttl(result.cache_control))


def ttl(control: wire.CacheControl | None) -> str | None:
    return None if control is None else control.ttl or "5m"


# Writing.


class Writer:
    """The messages of a request as this protocol takes them; what it cannot say is noted in `request.ignored`."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._ours = request.protocol == NAME

    def system(self, messages: list[Message]) -> tuple[str | list[Any] | None, list[Message]]:
        """(the system prompt, the other messages)

        Ours begins with it. Elsewhere system messages may stand anywhere, and few models take them there.
        """
        if self._ours:
            head = 1 if messages[0].role is Role.SYSTEM else 0
            system, rest = messages[:head], messages[head:]
        else:
            system = [message for message in messages if message.role is Role.SYSTEM]
            rest = [message for message in messages if message.role is not Role.SYSTEM]
        return self._content([part for message in system for part in message.parts]) or None, rest

    def messages(self, messages: list[Message]) -> list[dict[str, Any]]:
        """Turns as they are, or joined so that they alternate and each call is followed by its result."""
        if not messages:
            raise InvalidRequest("This model needs a message that is not of the system.", param="messages")
        if self._ours:
            return [{"role": message.role.value, "content": self._content(message.parts)} for message in messages]
        turns: list[tuple[str, list[Part]]] = []
        for message in messages:
            if message.name:
                self._ignore("messages.name")
            role = "assistant" if message.role is Role.ASSISTANT else "user"
            if turns and turns[-1][0] == role:
                turns[-1][1].extend(message.parts)
            else:
                turns.append((role, list(message.parts)))
        written = [(role, self._content(parts)) for role, parts in turns]
        return [{"role": role, "content": content} for role, content in written if content]

    def _content(self, parts: list[Part]) -> str | list[Any]:
        parts = [part for part in parts if not self._is_foreign(part)]
        if not self._ours:
            parts = [part for part in parts if not self._has_no_place(part)]
        if len(parts) == 1 and isinstance(parts[0], Text) and parts[0].cache_ttl is None:
            return parts[0].text
        return [self._block(part) for part in parts]

    def _is_foreign(self, part: Part) -> bool:
        """Reasoning that another provider encrypted."""
        foreign = isinstance(part, Thinking) and part.encrypted is not None and not is_claudes(part.encrypted)
        if foreign:
            self._ignore("messages.reasoning_content")
        return foreign

    def _has_no_place(self, part: Part) -> bool:
        """Empty text, and reasoning that nobody signed: a provider of this protocol refuses both."""
        if isinstance(part, Thinking) and part.signature is None and (part.encrypted is None or part.text):
            self._ignore("messages.reasoning_content")
            return True
        return isinstance(part, Text) and not part.text

    def _block(self, part: Part) -> Any:
        match part:
            case Text():
                return {"type": "text", "text": part.text, **cached(part.cache_ttl)}
            case Image():
                return {"type": "image", "source": _write_source(part), **cached(part.cache_ttl)}
            case ToolCall():
                call = {"id": self._id(part.id), "name": part.name, "input": write_input(part.arguments)}
                return {"type": "tool_use", **call, **cached(part.cache_ttl)}
            case ToolResult():
                return self._result(part)
            case Thinking(encrypted=str() as data):
                return {"type": "redacted_thinking", "data": to_claude(data)}
            case Thinking():
                return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
            case Foreign():
                return own(part, "messages")

    def _result(self, part: ToolResult) -> dict[str, Any]:
        body: dict[str, Any] = {"type": "tool_result", "tool_use_id": self._id(part.call_id)}
        if content := self._content([*part.content]):
            body["content"] = content
        if part.is_error:
            body["is_error"] = True
        return body | cached(part.cache_ttl)

    def _id(self, text: str) -> str:
        """Other protocols' ids may hold any character."""
        return text if self._ours else _NO_ID.sub("_", text)

    def _ignore(self, name: str) -> None:
        if name not in self._request.ignored:
            self._request.ignored.append(name)


def own(part: Foreign, param: str) -> msgspec.Raw:
    if part.protocol != NAME:
        raise InvalidRequest(f"This model cannot take '{part.type}' in '{param}'.", param=param)
    return msgspec.Raw(part.raw)


def cached(cache_ttl: str | None) -> dict[str, Any]:
    if cache_ttl is None:
        return {}
    return {"cache_control": {"type": "ephemeral"} | ({"ttl": cache_ttl} if cache_ttl != "5m" else {})}


def write_input(arguments: str) -> msgspec.Raw:
    """The arguments as the model wrote them: an object, which this protocol wants, or wrapped in one."""
    if not arguments.strip():
        return msgspec.Raw(b"{}")
    if is_object(arguments):
        return msgspec.Raw(arguments.encode())
    return msgspec.Raw(_ENCODE({BROKEN_ARGUMENTS: arguments}))


def is_object(text: str) -> bool:
    try:
        _OBJECT.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return True


def _write_source(image: Image) -> dict[str, Any]:
    if image.url is not None:
        return {"type": "url", "url": image.url}
    return {"type": "base64", "media_type": image.media_type, "data": image.data}
