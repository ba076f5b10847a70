"""The engine for weights that write nothing: vectors and rankings only, so no slots, no cache and no scheduler."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

from tokenworks.core.errors import InvalidRequest, Unavailable
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.base import EngineFailed, Setup
from tokenworks.worker.engines.generating import Batch, EngineDied, GeneratingEngine
from tokenworks.worker.engines.llama.binding import BindingError
from tokenworks.worker.engines.llama.embedding import Embedder
from tokenworks.worker.engines.llama.intake import check
from tokenworks.worker.engines.llama.kernel import KernelFailed
from tokenworks.worker.engines.llama.measuring import Measuring, begun
from tokenworks.worker.engines.llama.model import LoadFailed, Model
from tokenworks.worker.engines.llama.options import Plan
from tokenworks.worker.engines.llama.text import spelled

PROBE = wire.GenerateRequest(embed=("ping",))
RANKING_PROBE = wire.GenerateRequest(rank=wire.Ranking("ping", ("pong",)))
METRICS = """\
# TYPE tokenworks_engine_running_requests gauge
tokenworks_engine_running_requests {running}
# TYPE tokenworks_engine_computed_tokens counter
tokenworks_engine_computed_tokens {tokens}
# TYPE tokenworks_engine_steps counter
tokenworks_engine_steps {passes}
"""


class Measurer(GeneratingEngine):
    needs_weights = True

    def __init__(self, setup: Setup, plan: Plan) -> None:
        super().__init__(setup)
        self._plan = plan
        self._answers = itertools.count(1)
        self._thread = ThreadPoolExecutor(1, "engine")
        self._model: Model | None = None
        self._measuring: Measuring | None = None

    @property
    def model(self) -> Model:
        if self._model is None or not self.alive():
            raise Unavailable("The engine is starting.", retry_after=1.0)
        return self._model

    async def start(self, weights: Path | None) -> None:
        self._death = asyncio.get_running_loop().create_future()
        if weights is None:
            raise EngineFailed("this engine needs --weights")
        plan = self._plan
        try:
            model = self._model = await self._run(lambda: Model(weights, gpu_layers=plan.gpu_layers))
            self._measuring = Measuring(
                model,
                self._run,
                lambda: Embedder(model, capacity=plan.context, threads=plan.threads),
                most=plan.batch,
                queue=plan.queue,
            )
            await self._measuring.embedder()
        except (BindingError, LoadFailed, KernelFailed, EngineDied) as error:
            raise EngineFailed(str(error)) from error
        await self.probe()

    async def _run(self, work: Callable[[], Any]) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except KernelFailed as error:
            self._die(str(error))
            raise EngineDied(str(error)) from error

    async def probe(self) -> None:
        measuring = self._measuring
        if measuring is None or not self.alive():
            raise EngineFailed("the engine is not running")
        ranks = (await measuring.embedder()).ranks
        async with aclosing(self.answer(RANKING_PROBE if ranks else PROBE)) as batches:
            events = [event async for batch in batches for event in batch]
        if not any(isinstance(event, wire.Vector | wire.Ranked) for event in events):
            raise EngineFailed("the probe got nothing")

    async def generate(self, request: wire.GenerateRequest) -> AsyncGenerator[Batch, None]:
        check(request)
        if request.embed is None and request.rank is None:
            asked = "messages" if request.messages is not None else "prompts"
            raise InvalidRequest(
                "This model writes nothing: it measures texts. Ask for embeddings or a ranking.", param=asked
            )
        if self._measuring is None or not self.alive():
            raise Unavailable("The engine is starting.", retry_after=1.0)
        if request.embed is not None and (await self._measuring.embedder()).ranks:
            raise InvalidRequest("This model ranks documents; it makes no embeddings.", param="input")
        started = wire.Started(f"{self.setup.model}-{next(self._answers)}", self.setup.model)
        async with aclosing(begun(started, self._measuring.answer(request))) as batches:
            async for batch in batches:
                yield batch

    def tokenize(self, text: str) -> list[int]:
        return self.model.tokenize(text)

    def detokenize(self, ids: list[int]) -> str:
        return spelled(self.model, ids)

    def render(self, messages: Sequence[wire.Message], tools: Sequence[wire.Tool]) -> str:
        raise InvalidRequest("This model holds no conversations.", param="messages")

    async def progress(self) -> float:
        return self._measuring.passes if self._measuring is not None else 0

    async def metrics(self) -> str:
        done = self._measuring
        if done is None:
            return ""
        return METRICS.format(running=self.running, tokens=done.tokens, passes=done.passes)

    async def stop(self) -> None:
        await super().stop()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        if self._measuring is not None:
            self._measuring.close()
        if self._model is not None:
            self._model.close()
