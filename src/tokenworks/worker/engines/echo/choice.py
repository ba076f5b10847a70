"""One choice of an answer: a deterministic row of words, cut by limits and stop strings. Pure, no clock."""

import itertools
import json
from collections.abc import Iterator
from hashlib import blake2b
from random import Random

from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.echo import schemas
from tokenworks.worker.engines.echo.words import Vocabulary, split
from tokenworks.worker.stops import StopFinder


class Choice:
    """`step` generates one token and returns its events; the last of them is a `Finish`."""

    def __init__(self, request: wire.GenerateRequest, index: int, words: Iterator[str], limit: int) -> None:
        self.index = index
        self.tokens = 0
        self.finished = False
        self._words = words
        self._limit = limit
        self._stops = StopFinder(request.sampling.stop)
        self._search_after = request.sampling.min_tokens or 0
        self._logprobs = request.logprobs

    def step(self, vocabulary: Vocabulary) -> list[wire.Event]:
        word = next(self._words, None)
        if word is None:
            return self._finish("stop")
        self.tokens += 1
        if self.tokens <= self._search_after:
            text, stop = word, None
        else:
            text, stop = self._stops.feed(word)
        logprobs = (_logprob(word, self.tokens, self._logprobs),) if self._logprobs is not None else None
        events: list[wire.Event] = [wire.Tokens((vocabulary.id(word),), text, self.index, logprobs)]
        if stop is not None:
            self.finished = True
            return [*events, wire.Finish("stop", self.index, stop)]
        return events + self._finish("length") if self.tokens >= self._limit else events

    def _finish(self, reason: str) -> list[wire.Event]:
        self.finished = True
        rest = self._stops.flush()
        held: list[wire.Event] = [wire.Tokens(text=rest, index=self.index)] if rest else []
        return [*held, wire.Finish(reason, self.index)]


class CallChoice(Choice):
    """A choice that calls a tool with the smallest arguments its schema allows."""

    def __init__(self, request: wire.GenerateRequest, index: int, tool: wire.Tool, limit: int) -> None:
        arguments = json.dumps(schemas.smallest(tool.parameters)) if tool.parameters else "{}"
        super().__init__(request, index, iter(split(arguments)), limit)
        self._tool = tool
        self._id = "call_" + blake2b(f"{tool.name} {arguments} {index}".encode(), digest_size=12).hexdigest()

    def step(self, vocabulary: Vocabulary) -> list[wire.Event]:
        if self.tokens == 0:  # its name is its first token
            self.tokens = 1
            call: list[wire.Event] = [wire.ToolCall("", 0, self._id, self._tool.name, self.index)]
            return call + self._finish("length") if self._limit <= 1 else call
        word = next(self._words, None)
        if word is None:
            return self._finish("tool_calls")
        self.tokens += 1
        part: list[wire.Event] = [wire.ToolCall(word, index=self.index)]
        return part + self._finish("length") if self.tokens >= self._limit else part


def answer_words(
    request: wire.GenerateRequest, prompt: str, index: int, tokens: int | None, seed: int | None
) -> Iterator[str]:
    """The words of an answer up to its natural end; endless under `ignore_eos`.

    They are the prompt's. A seed shuffles them by (seed, index), unless the temperature is 0.
    """
    if request.json or request.json_schema is not None:
        schema = {"type": "object"} if request.json_schema is None else request.json_schema
        return iter(split(json.dumps(schemas.smallest(schema))))
    sampling = request.sampling
    words = split(prompt) or ["echo"]
    seed = sampling.seed if sampling.seed is not None else seed
    if seed is not None and sampling.temperature != 0:
        words = [word.strip() for word in words]
        Random(f"{seed}:{index}").shuffle(words)  # noqa: S311 -- no secret depends on it
        words = [words[0], *(f" {word}" for word in words[1:])]
    length = max(len(words) if tokens is None else tokens, sampling.min_tokens or 0)
    again = [words[0] if words[0][:1].isspace() else f" {words[0]}", *words[1:]]
    return itertools.islice(itertools.chain(words, itertools.cycle(again)), None if sampling.ignore_eos else length)


def called_tool(request: wire.GenerateRequest) -> wire.Tool | None:
    """The tool that this answer calls: the forced one, or under `auto` the one that the user's last message names."""
    if not request.tools or request.tool_choice == "none":
        return None
    if request.forced_tool is not None:
        return next((tool for tool in request.tools if tool.name == request.forced_tool), None)
    if request.tool_choice == "required":
        return request.tools[0]
    last = request.messages[-1] if request.messages else None
    if last is None or last.role != "user":
        return None
    return next((tool for tool in request.tools if tool.name in last.content), None)


def _logprob(word: str, position: int, alternatives: int) -> wire.Logprob:
    """Made up, but the same for the same word at the same place."""
    seed = blake2b(f"{position} {word}".encode("utf-8", "surrogatepass"), digest_size=2).digest()
    logprob = -int.from_bytes(seed, "big") / 65536
    top = [(word, logprob), *((f"{word}~{rank}", logprob - rank) for rank in range(1, alternatives))]
    return wire.Logprob(word, logprob, tuple(top[:alternatives]))
