"""Answers of one choice without text: vectors, and rankings."""

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from tokenworks.core.errors import ContextLengthExceeded, InvalidRequest
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.llama.embedding import Embedder
from tokenworks.worker.engines.llama.model import Model
from tokenworks.worker.engines.llama.runner import Runner

Result = TypeVar("Result")
Vectors = AsyncGenerator[list[wire.Event], None]


class Measuring:
    """The context is made with the first request: most models are never asked."""

    def __init__(self, model: Model, runner: Runner, make: Callable[[], Embedder]) -> None:
        self._model = model
        self._runner = runner
        self._make = make
        self._embedder: Embedder | None = None
        self._waiting: set[asyncio.Future[Any]] = set()

    def end(self, error: Exception) -> None:
        """Nothing more can come."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(error)

    def close(self) -> None:
        """After the engine's thread has ended."""
        if self._embedder is not None:
            self._embedder.close()

    async def answer(self, request: wire.GenerateRequest) -> Vectors:
        """InvalidRequest or ContextLengthExceeded before anything is given."""
        if request.rank is not None:
            texts: Sequence[str | list[int]] = [request.rank.query, *request.rank.documents]
        else:
            texts = request.embed or ()
        if request.dimensions is not None and request.dimensions > self._model.dimensions:
            raise InvalidRequest(f"At most {self._model.dimensions} dimensions.", param="dimensions")
        embedder = await self._embedder_()
        rows = [self._tokens(text, embedder.capacity) for text in texts]
        if request.rank is not None and embedder.ranks:
            query, *documents = rows
            end = [self._model.eos] if self._model.eos >= 0 else []
            rows = [[*query, *end, *document] for document in documents]
        total = sum(map(len, rows))
        vectors: list[list[float]] = []
        busy = 0
        for index, row in enumerate(rows):
            vector, took = await self._run(functools.partial(_timed, embedder, row, request.dimensions))
            busy += took
            if request.embed is not None:
                yield [wire.Vector(vector, index)]
            else:
                vectors.append(vector)
        if request.rank is not None:
            yield list(_ranked(request.rank, vectors, embedder.ranks))
        yield [wire.Finish("stop"), wire.Usage(input=total, gpu_ms=(busy + 500_000) // 1_000_000)]

    async def _embedder_(self) -> Embedder:
        if self._embedder is None:
            self._embedder = await self._run(self._make)
        return self._embedder

    async def _run(self, work: Callable[[], Result]) -> Result:
        """In the engine's thread, between two steps of those who generate."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()

        def run() -> None:
            if not done.cancelled():
                result = work()
                loop.call_soon_threadsafe(_settle, done, result)

        self._waiting.add(done)
        try:
            self._runner.call(run)
            return await done
        finally:
            self._waiting.discard(done)

    def _tokens(self, text: str | list[int], most: int) -> list[int]:
        if isinstance(text, str):
            tokens = self._model.tokenize(text, first=True)
        else:
            tokens = list(text)
            if any(not 0 <= token < self._model.tokens for token in tokens):
                raise InvalidRequest(f"Tokens of this model are 0 to {self._model.tokens - 1}.", param="input")
        if not tokens:
            raise InvalidRequest("There is nothing to embed in an empty text.", param="input")
        if len(tokens) > most:
            raise ContextLengthExceeded(f"A text has {len(tokens)} tokens; at most {most} fit.", param="input")
        return tokens


def _timed(embedder: Embedder, row: list[int], dimensions: int | None) -> tuple[list[float], int]:
    """The vector, and the nanoseconds that it took."""
    begun = time.perf_counter_ns()
    return embedder.embed(row, dimensions), time.perf_counter_ns() - begun


def _settle(done: "asyncio.Future[Result]", result: Result) -> None:
    if not done.done():
        done.set_result(result)


def _ranked(ranking: wire.Ranking, vectors: list[list[float]], scored: bool) -> list[wire.Ranked]:
    """By the model's score; by the cosine to the query for a model that only embeds."""
    if scored:
        scores = [vector[0] for vector in vectors]
    else:
        query, *documents = (np.array(vector) for vector in vectors)
        scores = [float(query @ document) for document in documents]
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    return [wire.Ranked(scores[index], index) for index in order[: ranking.top_n]]
