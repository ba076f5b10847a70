"""What only one protocol knows cannot cross into another: it is refused by name, never dropped."""

from collections.abc import Sequence
from typing import TypeVar

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import Foreign, Tool

T = TypeVar("T")


def known_tools(tools: Sequence[Tool | Foreign]) -> list[Tool]:
    """InvalidRequest for a tool that is no function."""
    for tool in tools:
        if isinstance(tool, Foreign):
            raise InvalidRequest(f"This model cannot use tools of type '{tool.type}'.", param="tools")
    return [tool for tool in tools if isinstance(tool, Tool)]


def known_parts(parts: Sequence[T | Foreign], *, param: str = "messages") -> list[T]:
    """InvalidRequest for content of another protocol."""
    for part in parts:
        if isinstance(part, Foreign):
            raise InvalidRequest(f"This model cannot read content of type '{part.type}'.", param=param)
    return [part for part in parts if not isinstance(part, Foreign)]
