"""Items of a conversation: a request's `input` -> messages, and messages -> `input`.

Neighbouring items of the assistant (reasoning, a message, its function calls) are one message of ours, as the other
chat protocols have them; a second message item begins the next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import (
    Foreign,
    Image,
    Message,
    Part,
    Refusal,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from tokenworks.protocols.openai_chat.signed_calls import unsigned_id
from tokenworks.protocols.openai_responses import types as wire
from tokenworks.protocols.proofs import is_claudes
from tokenworks.protocols.validation import decode

NAME = "openai_responses"

SIGNATURE = "tokenworks.signature:"
"""How `encrypted_content` carries the signature of a provider that signs its reasoning instead of encrypting it, so
that a client which sends the item back sends the signature back."""

_KIND = msgspec.json.Decoder(wire.Tagged)
_MESSAGE = msgspec.json.Decoder(wire.MessageItem)
_CALL = msgspec.json.Decoder(wire.FunctionCallItem)
_RESULT = msgspec.json.Decoder(wire.FunctionCallOutputItem)
_REASONING = msgspec.json.Decoder(wire.ReasoningItem)
_TEXT = msgspec.json.Decoder(wire.TextPart)
_REFUSAL = msgspec.json.Decoder(wire.RefusalPart)
_IMAGE = msgspec.json.Decoder(wire.ImagePart)

_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM, "developer": Role.SYSTEM}


@dataclass(slots=True)
class ForeignItem(Foreign):
    """An item beside messages, not content within one."""


def read_items(items: Sequence[msgspec.Raw]) -> list[Message]:
    messages: list[Message] = []
    for index, raw in enumerate(items):
        where = f"input[{index}]"
        tagged = decode(_KIND, raw, where)
        kind = tagged.type or ("message" if tagged.role else "item_reference")
        if kind == "message":
            _add_message(messages, decode(_MESSAGE, raw, where), where)
        elif kind == "function_call_output":
            result = decode(_RESULT, raw, where)
            content = _content(result.output, f"{where}.output")
            messages.append(Message(Role.TOOL, [ToolResult(result.call_id, _shown(content))]))
        else:
            _turn(messages).append(_part_of_turn(kind, raw, where))
    return messages


def _turn(messages: list[Message]) -> list[Part]:
    """The parts of the assistant's message that is being put together."""
    if not messages or messages[-1].role is not Role.ASSISTANT:
        messages.append(Message(Role.ASSISTANT, []))
    return messages[-1].parts


def _add_message(messages: list[Message], item: wire.MessageItem, where: str) -> None:
    role = _ROLES[item.role]
    content = _content(item.content, f"{where}.content")
    if role is not Role.ASSISTANT or not messages or messages[-1].role is not Role.ASSISTANT:
        messages.append(Message(role, content, phase=item.phase))
        return
    before = messages[-1].parts
    if any(isinstance(part, Text) for part in before) or not before:
        thoughts: list[Part] = []
        while before and isinstance(before[-1], Thinking):
            thoughts.insert(0, before.pop())
        messages.append(Message(role, thoughts + content, phase=item.phase))
    else:
        before += content
        messages[-1].phase = item.phase


def _part_of_turn(kind: str, raw: msgspec.Raw, where: str) -> Part:
    if kind == "reasoning":
        return _thinking(decode(_REASONING, raw, where))
    if kind == "function_call":
        call = decode(_CALL, raw, where)
        if call.namespace is None:
            return ToolCall(call.call_id, call.name, call.arguments)
        kind = "function_call with a namespace"
    return ForeignItem(NAME, kind, bytes(raw))


def _thinking(item: wire.ReasoningItem) -> Thinking:
    summary = [part.text for part in item.summary or ()]
    text = "".join([part.text for part in item.content or ()]) or joined_summary(summary)
    proof = item.encrypted_content
    if proof is not None and proof.startswith(SIGNATURE):
        return Thinking(text, signature=proof[len(SIGNATURE) :], summary=summary, id=item.id)
    return Thinking(text, encrypted=proof, summary=summary, id=item.id)


def joined_summary(parts: Sequence[str]) -> str:
    return "\n\n".join(parts)


def _content(content: str | list[msgspec.Raw], where: str) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)]
    return [_part(raw, f"{where}[{index}]") for index, raw in enumerate(content)]


def _part(raw: msgspec.Raw, where: str) -> Part:
    match decode(_KIND, raw, where).type:
        case "input_text" | "output_text" | "text":
            return Text(decode(_TEXT, raw, where).text)
        case "refusal":
            return Refusal(decode(_REFUSAL, raw, where).refusal)
        case "input_image":
            image = decode(_IMAGE, raw, where)
            return (
                Foreign(NAME, "input_image", bytes(raw), images=1)
                if image.image_url is None
                else _image(image, f"{where}.image_url")
            )
        case None:
            raise InvalidRequest(f"Missing required parameter: '{where}.type'.", param=f"{where}.type")
        case kind:
            return Foreign(NAME, kind, bytes(raw))


def _image(image: wire.ImagePart, where: str) -> Image:
    url = image.image_url or ""
    if url.startswith("data:"):
        media_type, _, data = url[5:].partition(";base64,")
        return Image(data=data, media_type=media_type, detail=image.detail, where=where)
    return Image(url=url, detail=image.detail, where=where)


def _shown(parts: list[Part]) -> list[Text | Image | Foreign]:
    return [part for part in parts if isinstance(part, Text | Image | Foreign)]


def write_items(messages: Sequence[Message], *, ours: bool = True) -> list[Any]:
    """`ours`: they came in this protocol."""
    parts = [message.parts if ours else _with_their_proofs(message.parts) for message in messages]
    return [item for message, said in zip(messages, parts, strict=True) for item in _write_message(message, said)]


def _with_their_proofs(parts: Sequence[Part]) -> list[Part]:
    """Other protocols show encrypted reasoning beside a summary of it; here both are one item."""
    found: list[Part] = []
    for part in parts:
        before = found[-1] if found else None
        if isinstance(before, Thinking) and isinstance(part, Thinking) and _belong_together(before, part):
            found[-1] = Thinking(before.text, encrypted=part.encrypted, summary=before.summary or [before.text])
        else:
            found.append(part)
    return found


def _belong_together(shown: Thinking, proof: Thinking) -> bool:
    return bool(shown.text and proof.encrypted) and not (shown.signature or shown.encrypted or proof.text)


def _write_message(message: Message, parts: Sequence[Part]) -> list[Any]:
    """In the order of the parts: content between other items is a message item of its own."""
    items: list[Any] = []
    content: list[Text | Image | Foreign] = []
    for part in parts:
        if isinstance(part, Text | Image) or (isinstance(part, Foreign) and not isinstance(part, ForeignItem)):
            content.append(part)
            continue
        if content:
            items.append(_write_content(message, content))
            content = []
        if not _says_nothing(part):
            items.append(_write_item(part))
    if content or not message.parts:
        items.append(_write_content(message, content))
    return items


def _says_nothing(part: Part) -> bool:
    """Reasoning of which only another provider's proof is there."""
    foreign = isinstance(part, Thinking) and (part.signature is not None or is_claudes(part.encrypted))
    return foreign and isinstance(part, Thinking) and not (part.text or part.summary)


def _write_item(part: ToolCall | ToolResult | Thinking | Foreign) -> Any:
    match part:
        case ToolCall():
            return {
                "type": "function_call",
                "call_id": unsigned_id(part.id),
                "name": part.name,
                "arguments": part.arguments,
            }
        case ToolResult():
            output = _write_parts(part.content, Role.USER)
            return {"type": "function_call_output", "call_id": unsigned_id(part.call_id), "output": output}
        case Thinking():
            return _write_thinking(part)
        case Foreign():
            return msgspec.Raw(part.raw)


def _write_thinking(part: Thinking) -> dict[str, Any]:
    """A signature and what Claude encrypted stay here: only their provider can read them."""
    item: dict[str, Any] = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text} for text in part.summary],
    }
    if part.id is not None:
        item["id"] = part.id
    if part.text and part.text != joined_summary(part.summary):
        item["content"] = [{"type": "reasoning_text", "text": part.text}]
    if part.encrypted is not None and not is_claudes(part.encrypted):
        item["encrypted_content"] = part.encrypted
    return item


def _write_content(message: Message, parts: list[Text | Image | Foreign]) -> dict[str, Any]:
    item = {"type": "message", "role": message.role.value, "content": _write_parts(parts, message.role)}
    return item if message.phase is None else item | {"phase": message.phase}


def _write_parts(parts: Sequence[Text | Image | Foreign], role: Role) -> str | list[Any]:
    if len(parts) == 1 and type(parts[0]) is Text:
        return parts[0].text
    return [_write_part(part, role) for part in parts]


def _write_part(part: Text | Image | Foreign, role: Role) -> Any:
    match part:
        case Refusal():
            return {"type": "refusal", "refusal": part.text}
        case Text() if role is Role.ASSISTANT:
            return {"type": "output_text", "text": part.text, "annotations": []}
        case Text():
            return {"type": "input_text", "text": part.text}
        case Image():
            url = part.url or f"data:{part.media_type};base64,{part.data}"
            return {"type": "input_image", "image_url": url, **({"detail": part.detail} if part.detail else {})}
        case Foreign():
            return own(part, "input")


def own(part: Foreign, param: str) -> msgspec.Raw:
    """InvalidRequest for what only another protocol knows."""
    if part.protocol != NAME:
        raise InvalidRequest(f"This model cannot take '{part.type}' in '{param}'.", param=param)
    return msgspec.Raw(part.raw)
