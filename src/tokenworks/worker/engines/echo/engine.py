"""The engine itself: what it was told, at which pace, with which fault, and the usage."""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec

from tokenworks.core.errors import ContextLengthExceeded, InternalError, InvalidRequest, Unavailable
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.base import OptionError, Setup, read_options
from tokenworks.worker.engines.echo.choice import CallChoice, Choice, answer_words, called_tool
from tokenworks.worker.engines.echo.faults import FAULTS, Fault, find_fault
from tokenworks.worker.engines.echo.vectors import DIMENSIONS, MOST_DIMENSIONS, embed, rank
from tokenworks.worker.engines.echo.words import Vocabulary, split
from tokenworks.worker.engines.generating import TELL_MS, Batch, EngineDied, GeneratingEngine

NonNegative = Annotated[float, msgspec.Meta(ge=0)]
BATCH = 32
"""Steps between two chances for others, when nothing paces the answer."""
MOST_CHOICES = 128


class Options(msgspec.Struct, frozen=True):
    """`rate` and `prefill_rate` are tokens per second (0: unlimited), delays are seconds."""

    rate: NonNegative = 0.0
    first_token_delay: NonNegative = 0.0
    prefill_rate: NonNegative = 0.0
    tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Length of an answer; None: as long as the prompt's text."""
    seed: int | None = None
    context: Annotated[int, msgspec.Meta(ge=16)] = 8192
    fault: str = ""
    fault_after: Annotated[int, msgspec.Meta(ge=0)] = 0
    fault_delay: NonNegative = 5.0


@dataclass(slots=True)
class Plan:
    """All that is decided before the first token. `texts` are the prompts as the answer begins with them."""

    choices: list[Choice]
    texts: list[str]
    prompt_tokens: int
    fault: Fault | None

    @property
    def steps(self) -> int:
        """Done so far: one token of every choice each."""
        return max((choice.tokens for choice in self.choices), default=0)

    def fault_is(self, name: str) -> bool:
        return self.fault is not None and self.fault.name == name


class Echo(GeneratingEngine):
    needs_weights = False

    def __init__(self, setup: Setup) -> None:
        self.options = read_options(Options, setup.options)
        if self.options.fault and self.options.fault not in FAULTS:
            raise OptionError(f"--option fault={self.options.fault}: known faults are {', '.join(FAULTS)}")
        self.context = setup.context_length or self.options.context
        capabilities = setup.capabilities or ("tools", "json_schema", "embeddings", "rerank")
        super().__init__(replace(setup, context_length=self.context, capabilities=capabilities))
        self._vocabulary = Vocabulary()
        self._answers = itertools.count(1)

    async def start(self, weights: Path | None) -> None:
        self._death = asyncio.get_running_loop().create_future()
        await self.probe()

    def tokenize(self, text: str) -> list[int]:
        return [self._vocabulary.id(word) for word in split(text)]

    def detokenize(self, ids: list[int]) -> str:
        return "".join(map(self._vocabulary.word, ids))

    def render(self, messages: Sequence[wire.Message], tools: Sequence[wire.Tool]) -> str:
        lines = [f"tool: {tool.name} {msgspec.json.encode(tool.parameters).decode()}\n" for tool in tools]
        for message in messages:
            calls = "".join(f" {call.name}({call.arguments})" for call in message.calls)
            lines.append(f"{message.role}: {message.content}{calls}\n")
        return "".join([*lines, "assistant:"])

    async def generate(self, request: wire.GenerateRequest) -> AsyncGenerator[Batch, None]:
        if not self.alive():
            raise Unavailable("The engine is restarting.", retry_after=1.0)
        tasks = (request.messages, request.prompts, request.embed, request.rank)
        if sum(task is not None for task in tasks) != 1:
            raise InvalidRequest("Give one of 'messages', 'prompts', 'embed' and 'rank'.", param="messages")
        if request.embed is not None or request.rank is not None:
            async for batch in self._measure(request):
                yield batch
            return
        plan = self._plan(request)
        if plan.fault_is("error_before"):
            raise InternalError("The engine failed on demand (fault=error_before).", code="engine_error")
        yield [wire.Started(f"echo-{next(self._answers)}", self.setup.model)]
        options = self.options
        await self._pause(options.first_token_delay)
        await self._pause(plan.prompt_tokens / options.prefill_rate if options.prefill_rate else 0)
        await self._pause(options.fault_delay if plan.fault_is("slow_first_token") else 0)
        if request.echo:
            per_prompt = len(plan.choices) // len(plan.texts)
            yield [wire.Tokens(text=plan.texts[c.index // per_prompt], index=c.index) for c in plan.choices]
        told = 0
        async for batch in self._run(plan):
            yield batch
            if (busy := self._pretended(plan)) >= told + TELL_MS:
                told = busy
                yield [wire.Tokens(gpu_ms=busy)]
        output = sum(choice.tokens for choice in plan.choices)
        told = output * 10 if plan.fault_is("wrong_usage") else output
        yield [wire.Usage(input=plan.prompt_tokens, output=told, gpu_ms=self._pretended(plan))]

    async def _measure(self, request: wire.GenerateRequest) -> AsyncGenerator[Batch, None]:
        """Vectors or a ranking: nothing is generated."""
        texts = [text if isinstance(text, str) else self.detokenize(text) for text in request.embed or ()]
        if request.rank is not None:
            texts += [request.rank.query, *request.rank.documents]
        dimensions = request.dimensions or DIMENSIONS
        if dimensions > MOST_DIMENSIONS:
            raise InvalidRequest(f"At most {MOST_DIMENSIONS} dimensions.", param="dimensions")
        sizes = [len(split(text)) for text in texts]
        for size in sizes:
            self._limit(size, None)
        fault = find_fault(" ".join(texts), self.options.fault, self.options.fault_after)
        if fault is not None and fault.name == "error_before":
            raise InternalError("The engine failed on demand (fault=error_before).", code="engine_error")
        yield [wire.Started(f"echo-{next(self._answers)}", self.setup.model)]
        if fault is not None:
            yield await self._fail(fault)
        for index, text in enumerate(texts if request.embed is not None else ()):
            yield [wire.Vector(embed(text, dimensions), index)]
            await self._pause(0)
        if request.rank is not None:
            ranked = rank(request.rank.query, request.rank.documents)[: request.rank.top_n]
            yield [wire.Ranked(score, index) for index, score in ranked]
        yield [wire.Finish("stop"), wire.Usage(input=sum(sizes))]

    async def _run(self, plan: Plan) -> AsyncGenerator[Batch, None]:
        """Every choice in turn, one token each; batches as the pace allows."""
        due = time.monotonic()
        fault = plan.fault
        batch: list[wire.Event | bytes] = []
        for step in itertools.count():
            if fault is not None and sum(choice.tokens for choice in plan.choices) >= fault.after:
                yield batch
                batch = await self._fail(fault)
                fault = None
            running = [choice for choice in plan.choices if not choice.finished]
            if not running:
                break
            for choice in running:
                batch += choice.step(self._vocabulary)
            if self.options.rate or step % BATCH == 0:
                yield batch
                batch = []
                due += 1 / self.options.rate if self.options.rate else 0
                await self._pause(due - time.monotonic())
        if batch:
            yield batch

    def _pretended(self, plan: Plan) -> int:
        """Milliseconds that the options pretend to compute: the same for the same request, whoever else is there."""
        rates = ((plan.prompt_tokens, self.options.prefill_rate), (plan.steps, self.options.rate))
        return round(1000 * (self.options.first_token_delay + sum(n / rate for n, rate in rates if rate)))

    async def _pause(self, seconds: float) -> None:
        """Lets others run. EngineDied when the engine dies meanwhile."""
        if seconds <= 0:
            await asyncio.sleep(0)
        elif self._death is not None:
            await asyncio.wait([self._death], timeout=seconds)
        if not self.alive():
            raise EngineDied

    async def _fail(self, fault: Fault) -> list[wire.Event | bytes]:
        """The faults of a running answer; the others have their own place."""
        match fault.name:
            case "cut":
                raise EngineDied
            case "stall":
                await self._pause(float(10**6))
            case "garbled":
                return [b"\xff" * 16]
            case "crash":
                self._die("crashed on demand (fault=crash)")
                raise EngineDied
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        return []

    def _plan(self, request: wire.GenerateRequest) -> Plan:
        if request.n * len(request.prompts or (0,)) > MOST_CHOICES:
            raise InvalidRequest(f"At most {MOST_CHOICES} choices in one request.", param="n")
        if request.messages is not None:
            rendered = self.render(request.messages, request.tools)
            said = [message.content for message in request.messages if message.role in ("user", "tool")]
            texts, sizes = [said[-1] if said else ""], [len(split(rendered))]
        else:
            texts = [p if isinstance(p, str) else self.detokenize(p) for p in request.prompts or ()]
            sizes = [len(split(text)) for text in texts]
        limits = [self._limit(size, request.max_tokens, truncate=request.truncate) for size in sizes]
        tool = called_tool(request)
        choices = [
            CallChoice(request, index, tool, limits[index // request.n])
            if tool is not None
            else Choice(
                request, index, self._words(request, texts[index // request.n], index), limits[index // request.n]
            )
            for index in range(request.n * len(texts))
        ]
        fault = find_fault(" ".join(texts), self.options.fault, self.options.fault_after)
        return Plan(choices, texts, sum(sizes), fault)

    def _words(self, request: wire.GenerateRequest, text: str, index: int) -> Iterator[str]:
        return answer_words(request, text, index, self.options.tokens, self.options.seed)

    def _limit(self, prompt: int, max_tokens: int | None, *, truncate: bool = False) -> int:
        room = self.context - prompt
        if truncate and room > 0:
            return min(max_tokens or room, room)
        if room < (max_tokens or 1):
            raise ContextLengthExceeded(
                f"This model's maximum context length is {self.context} tokens. However, you requested "
                f"{prompt + (max_tokens or 1)} tokens ({prompt} in the prompt, {max_tokens or 1} in the completion). "
                "Please reduce the length of the prompt or the completion.",
                param="messages",
            )
        return max_tokens or room
