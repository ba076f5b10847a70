"""Tokens per second of llama.cpp's server through the gateway, beside the same called directly."""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.table import Table

from benchmarks.processes import free_port, process, wait_http

ROUNDS, TOKENS = 5, 64
CALLERS = (1, 4, 16)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tw-bench-") as name:
        directory = Path(name)
        port = free_port()
        config = directory / "tokenworks.toml"
        config.write_text('[models.smollm2-135m]\nweights = "smollm2-135m"\nengine = "llama_server"\n')
        command = [str(Path(sys.executable).with_name("tokenworks")), "serve", "--port", str(port)]
        command += ["--config", str(config)]
        with process([*command, "--data-dir", str(directory / "data")], None, directory / "serve.log"):
            wait_http(f"http://127.0.0.1:{port}/readyz", 180)
            key = json.loads((directory / "data" / "bootstrap.json").read_text())["api_key"]
            engine = str(next((directory / "data" / "run").glob("*-engine.sock")))
            rows = asyncio.run(_compare(f"http://127.0.0.1:{port}", key, engine))
    table = Table(title=f"SmolLM2-135M, output tokens/s (median of {ROUNDS}, the two in turn)")
    for column in ("callers", "engine's own server", "through the gateway", "ratio", "TTFT p50 ms, direct", "gateway"):
        table.add_column(column, justify="right")
    for callers, direct, ours in rows:
        ratio = statistics.median(b[0] / a[0] for a, b in zip(direct, ours, strict=True))
        cells = [f"{statistics.median(rate for rate, _ in each):.0f}" for each in (direct, ours)]
        waits = [f"{statistics.median(wait for _, wait in each) * 1000:.0f}" for each in (direct, ours)]
        table.add_row(str(callers), *cells, f"{ratio:.2f}", *waits)
    table.caption = "target: within 5 %"
    Console().print(table)


async def _compare(
    url: str, key: str, engine: str
) -> list[tuple[int, list[tuple[float, float]], list[tuple[float, float]]]]:
    rows = []
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(engine, limit=0, force_close=True)) as direct,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as gateway,
    ):
        await _load(direct, "http://engine", "", 2)
        for callers in CALLERS:
            pairs = []
            for _ in range(ROUNDS):
                pairs.append(
                    (await _load(direct, "http://engine", "", callers), await _load(gateway, url, key, callers))
                )
            rows.append((callers, [a for a, _ in pairs], [b for _, b in pairs]))
    return rows


async def _load(session: aiohttp.ClientSession, url: str, key: str, callers: int) -> tuple[float, float]:
    """(output tokens/s of all callers together, median seconds to the first token)."""
    first: list[float] = []

    async def one(number: int) -> int:
        messages = [{"role": "user", "content": f"Story number {number}: tell me about the sea and the people there."}]
        body = {"model": "smollm2-135m", "messages": messages, "max_tokens": TOKENS, "ignore_eos": True}
        body |= {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
        begun, tokens = time.perf_counter(), 0
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
            async for line in response.content:
                if not tokens and b'"content":"' in line:
                    first.append(time.perf_counter() - begun)
                    tokens = 1
                if b'"usage":{' in line:
                    tokens = json.loads(line[6:])["usage"]["completion_tokens"]
        return tokens

    begun = time.perf_counter()
    tokens = sum(await asyncio.gather(*[one(number) for number in range(callers)]))
    return tokens / (time.perf_counter() - begun), statistics.median(first)
