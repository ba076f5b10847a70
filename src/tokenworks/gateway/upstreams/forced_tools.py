"""`tool_choice` required or named on an endpoint that only enforces JSON schemas.

The tools are described in the system message, the answer is constrained to `{"name": ..., "arguments": {...}}` with
each tool's own schema, and that text is turned into a tool call as it streams. The arguments' text is passed on as
the model wrote it.
"""

import re
import secrets
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from tokenworks.core.events import Event, Finished, FinishReason, TextDelta, ToolCallDelta
from tokenworks.core.messages import Message, Role, Text, Tool
from tokenworks.core.request import Conversation, Request, ResponseFormat
from tokenworks.protocols.foreign import known_tools

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"(?P<name>(?:[^"\\]|\\.)*)"\s*,\s*"arguments"\s*:\s*')
_TAIL = re.compile(r"\s*\}?\s*$")
_ENCODE = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Call:
    """`held` is text not yet passed on: the head, or what may be the outer object's closing brace."""

    held: str = ""
    begun: bool = False


class ForcedTools:
    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}

    def rewrite(self, request: Request) -> Request:
        task = request.task
        assert isinstance(task, Conversation)  # noqa: S101 - only a conversation can choose a tool
        name = task.tool_choice.name if task.tool_choice else None
        tools = [tool for tool in known_tools(task.tools) if name in (None, tool.name)]
        schema = {"anyOf": [_schema(tool) for tool in tools]} if len(tools) > 1 else _schema(tools[0])
        asked = replace(task, messages=_with_tools(task.messages, tools), tools=[], tool_choice=None)
        constraint = ResponseFormat(schema=schema, name="tool_call", strict=True)
        return replace(request, task=replace(asked, parallel_tool_calls=None), response_format=constraint)

    def __call__(self, events: list[Event]) -> list[Event]:
        turned: list[Event] = []
        for event in events:
            if isinstance(event, TextDelta):
                turned += self._text(self._calls.setdefault(event.index, _Call()), event)
            elif isinstance(event, Finished):
                turned += self._finish(self._calls.get(event.index, _Call()), event)
            else:
                turned.append(event)
        return turned

    def _text(self, call: _Call, event: TextDelta) -> list[Event]:
        call.held += event.text
        events: list[Event] = []
        if not call.begun:
            head = _HEAD.match(call.held)
            if head is None:
                return []
            call.begun, call.held = True, call.held[head.end() :]
            name = msgspec.json.decode(f'"{head["name"]}"', type=str)
            events.append(ToolCallDelta(0, "", f"call_{secrets.token_hex(12)}", name, event.index))
        tail = _TAIL.search(call.held)
        keep = tail.start() if tail else len(call.held)
        if keep:
            events.append(ToolCallDelta(0, call.held[:keep], index=event.index))
            call.held = call.held[keep:]
        return events

    def _finish(self, call: _Call, event: Finished) -> list[Event]:
        if not call.begun:
            return [TextDelta(call.held, event.index), event] if call.held else [event]
        reason = FinishReason.TOOL_CALLS if event.reason is FinishReason.STOP else event.reason
        return [Finished(reason, event.index)]


def _schema(tool: Tool) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": tool.parameters or {"type": "object"}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _with_tools(messages: list[Message], tools: list[Tool]) -> list[Message]:
    described = "\n".join(
        _ENCODE({"name": tool.name, "description": tool.description or "", "parameters": tool.parameters}).decode()
        for tool in tools
    )
    text = (
        f"You may call these functions:\n{described}\n"
        'Answer with one call as JSON: {"name": <function name>, "arguments": <arguments object>}'
    )
    if messages and messages[0].role is Role.SYSTEM:
        return [replace(messages[0], parts=[*messages[0].parts, Text("\n\n" + text)]), *messages[1:]]
    return [Message(Role.SYSTEM, [Text(text)]), *messages]
