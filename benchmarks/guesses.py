"""Tokens per second with guesses of what comes next against without: quoted text, alike requests, free text.

Two of our engines are asked in turn, so that each row is a ratio of one run.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.table import Table

from benchmarks.loads import OURS, Side, Timed, at_once, published, started, user

DOCUMENT = Path(__file__).parents[1] / "docs" / "engine.md"
CALLERS = ((1, 5), (4, 3), (16, 2))
"""(callers, rounds)"""
TOKENS = 64
Load = Callable[[Side, int, int], Awaitable[Timed]]


def main() -> None:
    table = Table(title="SmolLM2-135M, guesses against none (medians; the two in turn)")
    for column in ("load", "callers", "with, tokens/s", "without", "ratio"):
        table.add_column(column, justify="right")
    for row in asyncio.run(_rows()):
        table.add_row(*row)
    Console().print(table)


async def quoted(side: Side, round_: int, number: int) -> Timed:
    """A document, then its beginning once more: it is quoted. Each caller is a tenant with other sentences."""
    rng = random.Random(1000 * round_ + number)
    sentences = [line for line in DOCUMENT.read_text(encoding="utf-8").split(". ") if 40 < len(line) < 160]
    text = ". ".join(rng.sample(sentences, 3)) + "."
    return await side.go_on(f"{text}\n\nOnce more, the same text:\n\n{text[:60]}", TOKENS, f"{round_}-{number}")


async def alike(side: Side, round_: int, number: int) -> Timed:
    """Many requests of one tenant that differ in a number."""
    return await side.ask(user(f"Story {round_}{number}: the sea and the people there."), TOKENS, tenant="one")


async def free(side: Side, round_: int, number: int) -> Timed:
    """Text that is drawn at a temperature."""
    prompt = f"Here is story {round_}{number}, about the people of the sea:\n\n"
    return await side.go_on(prompt, TOKENS, "one", temperature=0.8, top_k=40, seed=100 * round_ + number)


async def _rows() -> list[tuple[str, ...]]:
    rows = []
    async with AsyncExitStack() as stack:
        both = [
            await started(stack, OURS, published(), slots=16, context=1024, threads=2, lookup=on)
            for on in ("true", "false")
        ]
        for load in (quoted, alike, free):
            for callers, rounds in CALLERS:
                rows.append(await _row(both, load, callers, rounds))
        print(await _told(both[0]))
    return rows


async def _row(both: list[Side], load: Load, callers: int, rounds: int) -> tuple[str, ...]:
    found: list[list[float]] = [[], []]
    for round_ in range(rounds):
        for each, side in zip(found, both, strict=True):
            begun = time.perf_counter()
            answers = await at_once(callers, max(callers, 4), lambda n, s=side, r=round_: load(s, callers * 10 + r, n))
            each.append(sum(answer.output for answer in answers) / (time.perf_counter() - begun))
    ratio = statistics.median(a / b for a, b in zip(*found, strict=True))
    texts = [f"{statistics.median(each):.0f}" for each in found]
    return (load.__name__, str(callers), *texts, f"{ratio:.2f}")


async def _told(side: Side) -> str:
    """How many guesses were checked and came true, by kind."""
    async with side.session.get("http://engine/worker/v1/metrics") as response:
        if response.status != 200:
            raise aiohttp.ClientError(await response.text())
        lines = (await response.text()).splitlines()
    return "\n".join(
        line for line in lines if line.startswith(("tokenworks_engine_drafted", "tokenworks_engine_accep"))
    )
