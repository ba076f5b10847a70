"""A call that the caller demands (`tool_choice` required or named): what the engine must hold the model to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenworks.protocols.worker.types import Tool
from tokenworks.worker.chat.formats import PYTHON_TAG, TOOL_CALL, Format


@dataclass(frozen=True, slots=True)
class Forced:
    """Generate, after the prompt and `prefix`, JSON that matches `schema`: a `Reader` of these tools finds the call in
    it. The prompt must not leave the model inside its reasoning: render it with `thinking=False`."""

    prefix: str
    schema: dict[str, Any]


def forced(format: Format, tools: Sequence[Tool], name: str | None = None) -> Forced:
    """Of one of `tools`, or of the one called `name`. ValueError when there is none."""
    calls = [_call(format, tool) for tool in tools if name in (None, tool.name)]
    if not calls:
        raise ValueError(f"no such tool: {name}")
    prefix = f"{next(iter(format.calls.openers))}\n" if format.calls is TOOL_CALL else ""
    return Forced(prefix, calls[0] if len(calls) == 1 else {"anyOf": calls})


def _call(format: Format, tool: Tool) -> dict[str, Any]:
    """`name` first: a reader can tell the call while its arguments are written."""
    arguments = "parameters" if format.calls is PYTHON_TAG else "arguments"
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, arguments: tool.parameters or {"type": "object"}},
        "required": ["name", arguments],
        "additionalProperties": False,
    }
