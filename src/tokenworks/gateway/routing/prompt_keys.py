"""What a prompt begins with, in names that a gateway can make: hashes of its text, block after block.

An engine names what it holds by tokens, which a gateway does not know. So it gives each request the names of its text,
and the engine tells all gateways which blocks of tokens these are: a later request that begins alike is known by them.
"""

from array import array
from collections.abc import Iterator
from hashlib import blake2b

import msgspec

from tokenworks.core.messages import Part, Text, Thinking, Tool, ToolCall, ToolResult
from tokenworks.core.request import Conversation, Prompts, Request

SMALLEST = 256
"""Bytes of each of the first blocks."""
DOUBLES = 32
"""After so many, blocks are twice as long: a long prompt has few names."""
_NAME = 8
_JSON = msgspec.json.Encoder().encode


def prompt_keys(request: Request, project: str) -> list[int]:
    """One for each full block of text, each of which stands for all that comes before, too. Of another project they
    are others."""
    raw = memoryview(b"".join(_pieces(request.task)))
    before, begin = blake2b(_bytes(f"{project}\0{request.salt}\0{request.model}"), digest_size=_NAME).digest(), 0
    found: list[int] = []
    while (end := begin + _size(len(found))) <= len(raw):
        block = blake2b(before, digest_size=_NAME)
        block.update(raw[begin:end])
        before, begin = block.digest(), end
        found.append(int.from_bytes(before, "little"))
    return found


def covered(count: int) -> int:
    """Bytes that the first `count` blocks have."""
    rounds, rest = divmod(count, DOUBLES)
    return SMALLEST * (DOUBLES * ((1 << rounds) - 1) + (rest << rounds))


def _size(number: int) -> int:
    return SMALLEST << (number // DOUBLES)


def _pieces(task: object) -> Iterator[bytes]:
    """Up to what is no text."""
    match task:
        case Conversation(messages=messages, tools=tools):
            for tool in tools:
                if not isinstance(tool, Tool):
                    return
                yield _JSON(tool)
            for message in messages:
                yield b"\0" + message.role.encode() + b"\0"
                for part in message.parts:
                    text = _text(part)
                    if text is None:
                        return
                    yield text
        case Prompts(prompts=[str() as prompt]):
            yield _bytes(prompt)
        case Prompts(prompts=[list() as prompt]):
            yield array("Q", prompt).tobytes()


def _text(part: Part) -> bytes | None:
    match part:
        case Text(text=text):
            return _bytes(text)
        case Thinking(text=text):
            return b"\1" + _bytes(text)
        case ToolCall(name=name, arguments=arguments):
            return b"\2" + _bytes(name) + b"\0" + _bytes(arguments)
        case ToolResult(content=content):
            texts = [_text(inner) for inner in content]
            return None if None in texts else b"\3" + b"".join(text for text in texts if text is not None)
    return None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
