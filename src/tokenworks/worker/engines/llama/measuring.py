"""Answers of one choice without text: vectors, and rankings."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol

from tokenworks.core.errors import ContextLengthExceeded, InvalidRequest, LimitReached, Unavailable
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.llama.embedding import Embedder, Vector, packs
from tokenworks.worker.engines.llama.model import Model

Vectors = AsyncGenerator[list[wire.Event], None]
Row = list[int]


class Run(Protocol):
    """Does something in the thread that owns the context, when it is its turn."""

    def __call__(self, work: Callable[[], Any], /) -> Awaitable[Any]: ...


class Measuring:
    """The context is made with the first request: most models are never asked.

    `most`: tokens of a forward pass, unless one text is longer. Requests take turns, a forward pass each.
    `queue`: requests that may be under way; half of them one tenant's.
    """

    def __init__(self, model: Model, run: Run, make: Callable[[], Embedder], *, most: int, queue: int) -> None:
        self._model = model
        self._run = run
        self._make = make
        self._most = most
        self._queue = queue
        self._embedder: Embedder | None = None
        self._making = asyncio.Lock()
        self._asked: Counter[str] = Counter()
        self.tokens = self.passes = 0

    def close(self) -> None:
        """After the thread has ended."""
        if self._embedder is not None:
            self._embedder.close()

    async def answer(self, request: wire.GenerateRequest) -> Vectors:
        """InvalidRequest, ContextLengthExceeded, LimitReached or Unavailable before anything is given."""
        if request.dimensions is not None and request.dimensions > self._model.dimensions:
            raise InvalidRequest(f"At most {self._model.dimensions} dimensions.", param="dimensions")
        self._admit(request.tenant)
        self._asked[request.tenant] += 1
        try:
            async for events in self._answer(request):
                yield events
        finally:
            self._asked[request.tenant] -= 1
            self._asked += Counter()  # drops those who wait for nothing

    async def _answer(self, request: wire.GenerateRequest) -> Vectors:
        embedder = await self.embedder()
        rows = await asyncio.to_thread(self._rows, request, embedder)
        done: list[Any] = []
        busy = 0
        for pack in packs([len(row) for row in rows], min(self._most, embedder.capacity)):
            results, took = await self._run(partial(self._measured, embedder, request, rows[pack]))
            busy += took
            if request.embed is not None:
                yield [wire.Vector(vector.tolist(), pack.start + at) for at, vector in enumerate(results)]
            else:
                done += results
        if request.rank is not None:
            yield list(_ranked(request.rank, done, scored=embedder.ranks))
        yield [wire.Finish("stop"), wire.Usage(input=sum(map(len, rows)), gpu_ms=(busy + 500_000) // 1_000_000)]

    async def embedder(self) -> Embedder:
        async with self._making:
            if self._embedder is None:
                self._embedder = await self._run(self._make)
            return self._embedder

    def _measured(self, embedder: Embedder, request: wire.GenerateRequest, rows: list[Row]) -> tuple[list[Any], int]:
        """In the thread: what the rows give, and the nanoseconds that it took."""
        begun = time.perf_counter_ns()
        ranks = request.rank is not None and embedder.ranks
        results: list[Any] = list(embedder.scores(rows) if ranks else embedder.vectors(rows, request.dimensions))
        self.tokens += sum(map(len, rows))
        self.passes += 1
        return results, time.perf_counter_ns() - begun

    def _admit(self, tenant: str) -> None:
        if self._asked[tenant] >= max(1, self._queue // 2):
            raise LimitReached("Too many of your requests wait for this model; try again in 1 s.", retry_after=1)
        if self._asked.total() >= self._queue:
            raise Unavailable("Too many requests wait for this model; try again in 1 s.", retry_after=1)

    def _rows(self, request: wire.GenerateRequest, embedder: Embedder) -> list[Row]:
        if request.rank is None:
            texts = request.embed or ()
            named = [f"input[{index}]" for index in range(len(texts))] if len(texts) > 1 else ["input"]
            return [self._row(text, name, embedder.capacity) for text, name in zip(texts, named, strict=False)]
        query, documents = request.rank.query, request.rank.documents
        places = [f"documents[{index}]" for index in range(len(documents))]
        if not embedder.ranks:
            found = zip([query, *documents], ["query", *places], strict=True)
            return [self._row(text, name, embedder.capacity) for text, name in found]
        rows = [self._model.tokenize_pair(query, document) for document in documents]
        for row, name in zip(rows, places, strict=True):
            _require_room(len(row), embedder.capacity, name, " together with the query")
        return rows

    def _row(self, text: str | Sequence[int], name: str, most: int) -> Row:
        if isinstance(text, str):
            tokens = self._model.tokenize(text, first=True) if text else []
        else:
            tokens = list(text)
            if any(not 0 <= token < self._model.tokens for token in tokens):
                raise InvalidRequest(f"Tokens of this model are 0 to {self._model.tokens - 1}.", param=name)
        if not tokens:
            raise InvalidRequest(f"There is nothing to measure in an empty text: '{name}'.", param=name)
        _require_room(len(tokens), most, name)
        return tokens


async def begun(started: wire.Started, events: Vectors) -> Vectors:
    """With `started` before them, alone, once it is known that nothing is refused."""
    async with aclosing(events):
        first = await anext(events)
        yield [started]
        yield first
        async for more in events:
            yield more


def _require_room(tokens: int, most: int, name: str, more: str = "") -> None:
    if tokens > most:
        raise ContextLengthExceeded(
            f"'{name}'{more} has {tokens} tokens, and this model's maximum context length is {most}: shorten it.",
            param=name,
        )


def _ranked(ranking: wire.Ranking, results: list[Any], *, scored: bool) -> Iterable[wire.Ranked]:
    """By the model's score; by the cosine to the query, which comes first, for a model that only embeds."""
    scores: list[float] = results if scored else _cosines(*results)
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    return [wire.Ranked(scores[index], index) for index in order[: ranking.top_n]]


def _cosines(query: Vector, *documents: Vector) -> list[float]:
    return [float(query @ document) for document in documents]
