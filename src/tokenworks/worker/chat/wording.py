"""What a chat template does not render itself, said in the words of the messages that it does."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

from tokenworks.protocols.worker.types import Message, Tool


def offered(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description or "", "parameters": tool.parameters}
    return {"type": "function", "function": function}


def split_prefix(messages: Sequence[Message]) -> tuple[Sequence[Message], str]:
    """A last message of the model's own is the beginning of its answer."""
    last = messages[-1] if messages else None
    if last is not None and last.role == "assistant" and last.content and not last.calls:
        return messages[:-1], last.content
    return messages, ""


def described(tools: Sequence[Tool]) -> str:
    """Tools in a system message, in the words of models that were trained with them (Hermes, SmolLM2)."""
    functions = "\n".join(json.dumps(offered(tool), ensure_ascii=False) for tool in tools)
    return (
        "You may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n"
        f"<tools>\n{functions}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call> "
        'XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )


def written_call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n</tool_call>'


def with_system(messages: list[Message], text: str) -> list[Message]:
    if messages and messages[0].role == "system":
        first = messages[0]
        return [Message("system", f"{first.content}\n\n{text}", first.name), *messages[1:]]
    return [Message("system", text), *messages]


def system_as_user(messages: list[Message]) -> list[Message]:
    """Before the next message of the user, or as one."""
    turned: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.role == "system":
            waiting.append(message.content)
        elif message.role == "user" and waiting:
            turned.append(Message("user", "\n\n".join([*waiting, message.content]), message.name))
            waiting = []
        else:
            turned.append(message)
    return [*turned, Message("user", "\n\n".join(waiting))] if waiting else turned


def merged(messages: list[Message]) -> list[Message]:
    """Neighbours of one role, where neither calls a tool or answers one, are one message."""

    def key(message: Message) -> tuple[str, int]:
        return (message.role, id(message) if message.calls or message.role == "tool" else 0)

    found = []
    for _, group in itertools.groupby(messages, key):
        first, *rest = group
        if rest:
            content = "\n\n".join(message.content for message in (first, *rest))
            reasoning = "\n\n".join(message.reasoning for message in (first, *rest) if message.reasoning)
            first = Message(first.role, content, first.name, reasoning)
        found.append(first)
    return found


def after_results(messages: list[Message]) -> list[Message]:
    """What the user says right after a tool's result is told with it."""
    found: list[Message] = []
    for message in messages:
        before = found[-1] if found else None
        if before is not None and before.role == "tool" and message.role == "user":
            found[-1] = Message("tool", f"{before.content}\n\n{message.content}", before.name, call_id=before.call_id)
        else:
            found.append(message)
    return found
