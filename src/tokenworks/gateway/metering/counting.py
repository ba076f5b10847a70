"""Our own count of an attempt, for upstreams that report none, and what we make of reports that cannot be true.

An estimate is bytes of text over four, which is close for English; token ids are counted as they are, an image as a
thousand tokens. What an engine of ours streams is counted by its pieces, one token each.
"""

from dataclasses import replace

import msgspec

from tokenworks.core.messages import Foreign, Image, Text, Thinking, Tool, ToolCall, ToolResult
from tokenworks.core.request import Conversation, Embeddings, Prompts, Request, Rerank
from tokenworks.core.usage import BYTES_PER_TOKEN, Usage
from tokenworks.protocols.base import Observation

TOKENS_PER_MESSAGE = 4
TOKENS_PER_IMAGE = 1_000
SLACK = 4_096
"""Tokens that a host may put before a prompt without being asked: its own instructions, descriptions of tools."""
TOLERANCE = 0.01
FEW = 4
"""Tokens that show in no text: the ends of a sequence, of a turn and of a call."""
LARGEST = 2**40
NOTHING = Usage()


def sent(request: Request) -> tuple[int, int]:
    """(images, milliseconds of audio) that any upstream of this request is sent."""
    images, audio_ms = request.images, 0
    if isinstance(request.task, Conversation):
        for message in request.task.messages:
            for part in message.parts:
                if type(part) is Text:  # as most are
                    continue
                for each in part.content if isinstance(part, ToolResult) else (part,):
                    if isinstance(each, Image):
                        images += 1
                    elif isinstance(each, Foreign):
                        images += each.images
                        audio_ms += each.audio_ms
    return images, audio_ms


class Count(msgspec.Struct, frozen=True):
    """`usage` is what is billed. `counted` is our own count, where it differs from the report by more than 1 %; `doubt`
    names why the report is not billed, if it is not."""

    usage: Usage
    counted: Usage | None = None
    doubt: str = ""


def judge(report: Usage, seen: Observation, request: Request, *, local: bool, carried: int = 0) -> Count:
    """What a finished report is worth. A report that cannot be true is not billed: our own count is.

    `carried`: tokens of earlier attempts that this one got with its prompt.
    """
    if report.gpu_ms and not local:  # what somebody else's machine did is their business, and their word
        report = replace(report, gpu_ms=0)
    doubt = _impossible(report, request, carried)
    if doubt:
        counted = estimate(request, seen, local=local)
        return Count(counted, counted, doubt)
    if local and request.stream and seen.deltas:
        most = max(report.output * TOLERANCE, FEW * request.n)
        if abs(report.output - seen.deltas) > most:
            prompt = Usage(report.input, report.cached_input, report.cache_write)
            return Count(report, prompt + Usage(output=seen.deltas))
    return Count(report)


def _impossible(report: Usage, request: Request, carried: int) -> str:
    if min(report.input, report.cached_input, report.cache_write, report.output, report.reasoning) < 0:
        return "negative"
    if max(report.prompt, report.output) > LARGEST:
        return "absurd"
    most = request.max_output_tokens
    if most is not None and report.output - report.reasoning > (most + FEW) * _answers(request):
        return "more_than_the_maximum"
    # A token is at least a byte, and whatever is said in text is in the body.
    if report.prompt - carried > len(request.body) + SLACK and request.body and _is_text(request):
        return "more_than_the_prompt"
    return ""


def _answers(request: Request) -> int:
    return request.n * (len(request.task.prompts) if isinstance(request.task, Prompts) else 1)


def _is_text(request: Request) -> bool:
    """Pictures by their address, earlier answers by their id and files are more than the body shows."""
    if not isinstance(request.task, Conversation):
        return not request.own
    if request.own or not all(isinstance(tool, Tool) for tool in request.task.tools):
        return False
    parts = [part for message in request.task.messages for part in message.parts]
    results = [inner for part in parts if isinstance(part, ToolResult) for inner in part.content]
    return all(isinstance(part, Text | Thinking | ToolCall | ToolResult) for part in [*parts, *results])


def estimate(request: Request, seen: Observation, *, local: bool) -> Usage:
    """What went by so far."""
    prompt = seen.prompt or Usage(input=estimate_input(request))
    return prompt + Usage(output=output(seen, local=local), gpu_ms=seen.gpu_ms if local else 0)


def output(seen: Observation, *, local: bool) -> int:
    """Pieces, or by their text where a host puts several tokens into one, as in an answer that is not streamed."""
    by_text = _tokens(seen.size)
    return by_text if by_text > 2 * seen.deltas and not (local and seen.deltas > 1) else seen.deltas


def estimate_input(request: Request) -> int:
    match request.task:
        case Conversation(messages=messages, tools=tools):
            texts = sum(_size(part) for message in messages for part in message.parts)
            described = sum(len(_JSON(tool)) for tool in tools)
            images = sum(isinstance(part, Image) for message in messages for part in message.parts)
            return _tokens(texts + described) + TOKENS_PER_MESSAGE * len(messages) + TOKENS_PER_IMAGE * images
        case Prompts(prompts=prompts):
            return sum(_text_tokens(prompt) for prompt in prompts)
        case Embeddings(inputs=inputs):
            return sum(_text_tokens(given) for given in inputs)
        case Rerank(query=query, documents=documents):
            return sum(_text_tokens(query) + _text_tokens(document) for document in documents)


_JSON = msgspec.json.Encoder().encode


def _tokens(size: int) -> int:
    return -(-size // BYTES_PER_TOKEN)


def _text_tokens(text: str | list[int]) -> int:
    return len(text) if isinstance(text, list) else _tokens(_bytes(text))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _size(part: object) -> int:
    match part:
        case Text(text=text) | Thinking(text=text):
            return _bytes(text)
        case ToolCall(name=name, arguments=arguments):
            return _bytes(name) + _bytes(arguments)
        case ToolResult(content=content):
            return sum(_size(inner) for inner in content)
        case _:
            return 0
