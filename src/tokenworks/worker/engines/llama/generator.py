"""The engine behind the worker protocol, in the process that holds the weights. See runner.py for its thread."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

from tokenworks.core.errors import Unavailable
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.chat.template import BadTemplate, Template
from tokenworks.worker.engines.base import EngineFailed, Setup
from tokenworks.worker.engines.generating import TELL_MS, Batch, EngineDied, GeneratingEngine
from tokenworks.worker.engines.kv_events import KVEvents
from tokenworks.worker.engines.llama.adapters import Adapters
from tokenworks.worker.engines.llama.answer import Answer
from tokenworks.worker.engines.llama.binding import BindingError
from tokenworks.worker.engines.llama.choice import Choice
from tokenworks.worker.engines.llama.disk import Disk, open_disk
from tokenworks.worker.engines.llama.drafting import loading
from tokenworks.worker.engines.llama.drafting.drafter import Drafter
from tokenworks.worker.engines.llama.drafting.model import DraftModel
from tokenworks.worker.engines.llama.embedding import Embedder
from tokenworks.worker.engines.llama.grammar import Grammars
from tokenworks.worker.engines.llama.intake import Given, Intake, check
from tokenworks.worker.engines.llama.kernel import Kernel, KernelFailed
from tokenworks.worker.engines.llama.measuring import Measuring, begun
from tokenworks.worker.engines.llama.model import LoadFailed, Model
from tokenworks.worker.engines.llama.options import Plan, smallest_step
from tokenworks.worker.engines.llama.pace import Pace
from tokenworks.worker.engines.llama.runner import Runner
from tokenworks.worker.engines.llama.scheduling.names import Names
from tokenworks.worker.engines.llama.scheduling.prefixes import Prefixes
from tokenworks.worker.engines.llama.scheduling.scheduler import Scheduler
from tokenworks.worker.engines.llama.scheduling.trace import TracedScheduler
from tokenworks.worker.engines.llama.text import spelled

PROBE = wire.GenerateRequest(prompts=("ping",), max_tokens=1, priority="interactive")


class Generator(GeneratingEngine):
    needs_weights = True

    def __init__(self, setup: Setup, plan: Plan) -> None:
        super().__init__(setup)
        self._plan = plan
        self._answers = itertools.count(1)
        self._model: Model | None = None
        self._kernel: Kernel | None = None
        self._draft: DraftModel | None = None
        self._runner: Runner | None = None
        self._intake: Intake | None = None
        self._measuring: Measuring | None = None
        self._adapters: Adapters | None = None
        self._disk: Disk | None = None
        self._trace: BinaryIO | None = None
        self._living: set[Answer] = set()
        self._names = Names(plan.secret)
        self._events: KVEvents | None = None

    def kv_events(self) -> KVEvents | None:
        return self._events

    @property
    def runner(self) -> Runner:
        """Unavailable while there is none."""
        if self._runner is None or not self.alive():
            raise Unavailable("The engine is restarting.", retry_after=1.0)
        return self._runner

    @property
    def intake(self) -> Intake:
        if self._intake is None:
            raise Unavailable("The engine is starting.", retry_after=1.0)
        return self._intake

    async def start(self, weights: Path | None) -> None:
        self._death = asyncio.get_running_loop().create_future()
        if weights is None:
            raise EngineFailed("this engine needs --weights")
        try:
            # In a thread that ends: llama.cpp's helpers live as long as the thread that called it, and while more of
            # them live than there are cores, none of them spins; see spinning.py.
            with ThreadPoolExecutor(1) as once:
                await asyncio.get_running_loop().run_in_executor(once, self._load, weights)
        except (BindingError, LoadFailed, KernelFailed, BadTemplate) as error:
            raise EngineFailed(str(error)) from error
        assert self._kernel is not None and self._intake is not None  # noqa: S101 -- `_load` made them
        kernel, plan = self._kernel, self._plan
        cache = plan.cache if kernel.layout is not None else 0
        try:
            self._disk = open_disk(plan.disk, kernel.layout) if cache else None
        except OSError as error:
            raise EngineFailed(f"the folder for keys and values cannot be used: {error}") from error
        self._events = KVEvents() if cache else None
        public = self._intake.public() if cache else ()
        prefixes = Prefixes(cache, public, self._events, self._disk, self._names)
        if self._disk is not None:
            await asyncio.to_thread(self._disk.bring_back, prefixes)
        least = smallest_step(kernel.slots)
        scheduler = self._scheduler(kernel, prefixes, least)
        pace = Pace(least, max(least, min(plan.batch, kernel.batch)), plan.step)
        drafter = Drafter(plan.lookup_memory, self._draft)
        self._runner = Runner(kernel, scheduler, pace, drafter, self._die)
        if self._disk is not None:
            self._runner.observed.disk(self._disk)
        self._runner.start()
        model, capacity = self._model, kernel.capacity
        assert model is not None  # noqa: S101 -- `_load` made it
        folder = Path(plan.adapters).expanduser() if plan.adapters is not None else None
        self._adapters = Adapters(folder, plan.model, model, kernel, self._runner)
        self._measuring = Measuring(
            model,
            self._runner.run,
            lambda: Embedder(model, capacity=capacity, threads=plan.threads),
            most=plan.batch,
            queue=plan.queue,
        )
        await self.probe()

    def _scheduler(self, kernel: Kernel, prefixes: Prefixes, budget: int) -> Scheduler:
        plan = self._plan
        if plan.trace is None:
            return Scheduler(kernel, prefixes, budget=budget, queue=plan.queue)
        try:
            self._trace = file = Path(plan.trace).expanduser().open("wb")
        except OSError as error:
            raise EngineFailed(f"the trace cannot be written: {error}") from error
        return TracedScheduler(kernel, prefixes, file, kernel.bytes_per_token, budget=budget, queue=plan.queue)

    def _load(self, weights: Path) -> None:
        plan = self._plan
        model = self._model = Model(weights, gpu_layers=plan.gpu_layers)
        batch = max(plan.batch, smallest_step(plan.slots))
        self._kernel = Kernel(model, slots=plan.slots, capacity=plan.context, batch=batch, threads=plan.threads)
        source = plan.template if plan.template is not None else model.chat_template
        special = [model.text_of(token) for token in sorted(model.special | model.ends)]
        template = None
        if source:
            template = Template(source, bos=model.text_of(model.bos), eos=model.text_of(model.eos), special=special)
        if plan.draft is not None:
            self._draft = loading.load(Path(plan.draft), model, self._kernel, plan.gpu_layers)
        lookup = plan.lookup and self._kernel.cuts
        guesses = lookup or self._draft is not None
        self._intake = Intake(
            model,
            template,
            Grammars(model),
            self._kernel.capacity,
            lookup=lookup,
            guesses=guesses,
            names=self._names,
        )

    async def stop(self) -> None:
        await super().stop()
        if self._runner is not None:
            await self._runner.stop()
            self._runner = None
        if self._trace is not None:
            self._trace.close()
        if self._disk is not None:
            await asyncio.to_thread(self._disk.close)
        if self._measuring is not None:
            self._measuring.close()
        if self._draft is not None:
            self._draft.close()
        if self._kernel is not None:
            self._kernel.close()
        if self._model is not None:
            self._model.close()

    def _die(self, reason: str) -> None:
        super()._die(reason)
        for answer in self._living:
            answer.end(EngineDied())
        if self._runner is not None:
            self._runner.end(EngineDied())

    async def progress(self) -> float:
        return self._runner.steps if self._runner is not None else 0

    def tokenize(self, text: str) -> list[int]:
        return self.intake.model.tokenize(text)

    def detokenize(self, ids: list[int]) -> str:
        return spelled(self.intake.model, ids)

    def render(self, messages: Sequence[wire.Message], tools: Sequence[wire.Tool]) -> str:
        return self.intake.render(messages, tools).text

    async def generate(self, request: wire.GenerateRequest) -> AsyncGenerator[Batch, None]:
        runner = self.runner
        if request.embed is not None or request.rank is not None:
            async for batch in self._measure(request):
                yield batch
            return
        assert self._adapters is not None  # noqa: S101 -- there is a runner
        async with self._adapters.using(request.model) as adapter:
            choices, prompts = await asyncio.to_thread(self.intake.choices, request, adapter)
            answer = Answer(choices, asyncio.get_running_loop().create_future())
            runner.submit(answer)
            self._living.add(answer)
            try:
                async for batch in self._follow(request, answer, prompts):
                    yield batch
            finally:
                self._living.discard(answer)
                runner.cancel(answer)

    async def _follow(
        self, request: wire.GenerateRequest, answer: Answer, prompts: list[Given]
    ) -> AsyncGenerator[Batch, None]:
        await answer.accepted
        model = request.model or self.setup.model
        yield [wire.Started(f"{model}-{next(self._answers)}", model)]
        if request.echo:
            texts = [self.detokenize(prompt.tokens) for prompt in prompts]
            yield [wire.Tokens(text=texts[c.index // request.n], index=c.index) for c in answer.choices]
        told = 0
        while answer.unfinished:
            events = await answer.batch()
            if (busy := _busy_ms(answer.choices)) >= told + TELL_MS:
                told = busy
                events.append(wire.Tokens(gpu_ms=busy))
            yield events
        yield [_usage(answer.choices, prompts, request.n)]

    async def _measure(self, request: wire.GenerateRequest) -> AsyncGenerator[Batch, None]:
        assert self._measuring is not None  # noqa: S101 -- there is a runner
        check(request)
        started = wire.Started(f"{self.setup.model}-{next(self._answers)}", self.setup.model)
        async with aclosing(begun(started, self._measuring.answer(request))) as batches:
            async for batch in batches:
                yield batch

    async def metrics(self) -> str:
        return self._runner.observed.render() if self._runner is not None else ""


def _usage(choices: list[Choice], prompts: list[Given], n: int) -> wire.Usage:
    """A prompt counts once, however many choices were made of it."""
    first = [choice.sequence for choice in choices[::n]]
    cached = sum(min(sequence.cached, len(prompt.tokens)) for sequence, prompt in zip(first, prompts, strict=True))
    total = sum(len(prompt.tokens) for prompt in prompts)
    output = sum(choice.generated for choice in choices)
    return wire.Usage(input=total - cached, cached_input=cached, output=output, gpu_ms=_busy_ms(choices))


def _busy_ms(choices: list[Choice]) -> int:
    return (sum(choice.sequence.busy_ns for choice in choices) + 500_000) // 1_000_000
