"""What chaos says when nothing is wrong: the same words to everybody, in any protocol that can be served."""

import time

from tokenworks.core.events import Event, Finished, FinishReason, Started, TextDelta, ToolCallDelta, UsageReport
from tokenworks.core.messages import Role, Text, Tool, ToolMode
from tokenworks.core.request import Conversation, Prompts, Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.base import Codec

WORDS = ("The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", ",", " twice", ".")
TEXT = "".join(WORDS)
ARGUMENTS = ('{"ci', 'ty": "P', 'aris", ', '"days"', ": 3}")
PROMPT_TOKENS = 10


def said_before(request: Request) -> str | None:
    """The assistant's words that this request wants to be gone on with."""
    task = request.task
    if isinstance(task, Conversation) and task.messages[-1].role is Role.ASSISTANT:
        return "".join(part.text for part in task.messages[-1].parts if isinstance(part, Text))
    if isinstance(task, Prompts) and isinstance(task.prompts[0], str):
        at = task.prompts[0].find(WORDS[0])
        return None if at < 0 else task.prompts[0][at:]
    return None


def events(request: Request) -> list[Event]:
    """One event for each word, then the finish and the usage: a prompt has always ten tokens, before what was said."""
    said = said_before(request) or ""
    begun: list[Event] = [Started("chaos-1", request.model)]
    if _calls(request):
        task = request.task
        assert isinstance(task, Conversation)  # noqa: S101 - only a conversation can call
        name = next(tool.name for tool in task.tools if isinstance(tool, Tool))
        pieces = [ToolCallDelta(0, ARGUMENTS[0], "call_chaos1", name)]
        pieces += [ToolCallDelta(0, text) for text in ARGUMENTS[1:]]
        usage = Usage(PROMPT_TOKENS, output=len(pieces))
        return [*begun, *pieces, Finished(FinishReason.TOOL_CALLS), UsageReport(usage)]
    words = _rest(said)
    usage = Usage(PROMPT_TOKENS + len(WORDS) - len(words), output=len(words))
    return [*begun, *[TextDelta(word) for word in words], Finished(FinishReason.STOP), UsageReport(usage)]


def stream(codec: Codec, request: Request, events: list[Event]) -> list[bytes]:
    """The bytes of each event, most of them one piece of output; the last has the terminator."""
    request.include_usage = True
    writer = codec.stream_writer(request, "chaos-1", int(time.time()))
    pieces = [writer.feed(event) for event in events]
    return [piece for piece in [*pieces, writer.close()] if piece]


def whole(codec: Codec, request: Request, events: list[Event]) -> bytes:
    return codec.encode_response(request, events, "chaos-1", int(time.time()))


def _calls(request: Request) -> bool:
    choice = request.task.tool_choice if isinstance(request.task, Conversation) else None
    return choice is not None and choice.mode is ToolMode.REQUIRED


def _rest(said: str) -> list[str]:
    """The words that come after those that were said; all of them when that was something else."""
    if not said or not TEXT.startswith(said):
        return list(WORDS)
    rest = TEXT[len(said) :]
    words = list(WORDS)
    while words and len("".join(words)) > len(rest):
        words.pop(0)
    head = rest[: len(rest) - len("".join(words))]
    return [head, *words] if head else words
