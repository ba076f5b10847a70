"""Our engine beside llama.cpp's own server: throughput, shared prefixes, stalls, fairness, the cache.

Both run at the same time with as many slots and threads and are asked in turn, so that each row is a ratio of one run.
"""

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import kernel, scheduling
from benchmarks.loads import WEIGHTS, Side, at_once, published, sides, user, words
from benchmarks.scheduling import Row
from tokenworks.models import load_catalog, optimized
from tokenworks.worker.engines.llama.optimizing.choosing import choose
from tokenworks.worker.engines.llama.optimizing.requantize import FORMATS

TOKENS = 48
THROUGHPUT = ((1, 9, 1.0), (4, 7, 1.0), (16, 3, 1.15), (64, 3, 1.15))
"""(callers, rounds, target): few callers are quick to ask and noisy, so they are asked more often."""
MANY = 16
"""Callers from which on the forward passes are measured by themselves, and the copy of the weights is."""
SIZE = (64, 512)
"""Slots, and tokens of each, of both engines."""
ROUNDS = 2
FIRSTS = ((3, 16), (1, 6))
"""(rounds, requests) of tenant B alone and beside A, ours and theirs: each of theirs waits for seconds beside A."""
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 2, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def main() -> None:
    rows = asyncio.run(_all_rows())
    rows += scheduling.rows()
    table = Table(title="SmolLM2-135M, our engine beside llama.cpp's server (medians; the two in turn)")
    for column in ("load", "ours", "theirs", "ratio", "target"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row.load, row.ours, row.theirs, row.ratio, row.target)
    Console().print(table)


async def _all_rows() -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="tw-") as cache:
        copy = _optimized(Path(cache))
        async with sides(*SIZE, copy=copy) as every:
            for side in every:
                await side.ask(user("hi"), 4)
            for callers, rounds, target in THROUGHPUT:
                rows += await _throughput(every, callers, rounds, target)
            rows.append(await _constrained(every[0]))
    async with sides(16, 2560) as both:
        rows += await _shared_prefix(both)
        rows.append(await _stall(both))
        rows.append(await _fairness(both))
        rows.append(await _oversubscribed(both[0]))
    return rows


def _optimized(cache: Path) -> Path | None:
    """The copy that `tokenworks models optimize` makes of the weights here; None when nothing is faster."""
    choice = choose(
        load_catalog().resolve(WEIGHTS),
        published(),
        cache,
        formats=list(FORMATS),
        most_loss=optimized.MOST_LOSS,
        progress=lambda title: lambda done, total: None,
    )
    return choice.path if choice.best.original else None


async def _throughput(every: list[Side], callers: int, rounds: int, target: float) -> list[Row]:
    """Every side in turn, and from `MANY` callers on what the forward passes of the same file do by themselves."""
    found: list[list[float]] = [[] for _ in every]
    bounds: list[float] = []
    for round_ in range(rounds):
        for each, side in zip(found, every, strict=True):
            each.append(await _tokens_per_second(side, callers, callers, f"{callers} {round_}"))
        if callers >= MANY:
            bounds.append(await kernel.alone(published(), *SIZE, callers))
    ours, theirs, *copy = found
    rows = [_compared(f"{callers} callers, tokens/s, the same file", ours, theirs, f">= {target}")]
    if bounds:
        rows.append(_compared(f"{callers} callers, ours against its forward passes alone", ours, bounds, ""))
        rows.append(_compared(f"{callers} callers, forward passes alone against theirs", bounds, theirs, "the most"))
        rows += [
            _compared(f"{callers} callers, ours with `models optimize` against the published file", each, theirs, "")
            for each in copy
        ]
    return rows


def _compared(load: str, one: list[float], other: list[float], target: str) -> Row:
    ratio = statistics.median(a / b for a, b in zip(one, other, strict=True))
    return Row(load, f"{statistics.median(one):.0f}", f"{statistics.median(other):.0f}", f"{ratio:.2f}", target)


async def _tokens_per_second(side: Side, callers: int, many: int, salt: object, tokens: int = TOKENS) -> float:
    begun = time.perf_counter()
    answers = await at_once(
        callers,
        many,
        lambda n: side.ask(user(f"Story {salt}-{n}: the sea and the people there."), tokens, tenant=f"t{n % 8}"),
    )
    return sum(answer.output for answer in answers) / (time.perf_counter() - begun)


async def _constrained(ours: Side) -> Row:
    """The same number of callers with a schema and without; every answer has to be valid."""
    rates: list[list[float]] = [[], []]
    valid = total = 0
    for round_ in range(ROUNDS):
        begun = time.perf_counter()
        answers = await at_once(
            16, 32, lambda n, r=round_: ours.ask(user(f"A person, number {r}-{n}"), 96, json_schema=SCHEMA)
        )
        output = [answer.output for answer in answers]
        rates[0].append(sum(output) / (time.perf_counter() - begun))
        rates[1].append(await _tokens_per_second(ours, 16, 32, f"free {round_}", round(statistics.mean(output))))
        total += len(answers)
        valid += sum(set(json.loads(answer.text)) == {"name", "age", "tags"} for answer in answers)
    ratio = statistics.median(a / b for a, b in zip(*rates, strict=True))
    texts = [f"{statistics.median(rate):.0f}" for rate in rates]
    return Row("JSON schema against free, tokens/s", *texts, f"{ratio:.2f}, {valid}/{total} valid", ">= 0.9, all")


async def _shared_prefix(both: list[Side]) -> list[Row]:
    times: list[list[float]] = [[], []]
    firsts: list[list[float]] = [[], []]
    for round_ in range(ROUNDS):
        for index, side in enumerate(both):
            system = words(560, f"s{round_}")
            begun = time.perf_counter()
            answers = await at_once(
                16, 32, lambda n, s=side, p=system: s.ask(user(f"Question {n}?", p), 16, tenant="one")
            )
            times[index].append(time.perf_counter() - begun)
            firsts[index].append(max(answer.first for answer in answers))
    rows = []
    for name, found, target in (("time", times, 0.4), ("p99 TTFT", firsts, 0.2)):
        ratio = statistics.median(a / b for a, b in zip(*found, strict=True))
        texts = [f"{statistics.median(each):.1f}" for each in found]
        rows.append(Row(f"32 over one 600-token prompt, {name}, s", *texts, f"{ratio:.2f}", f"<= {target}"))
    return rows


async def _stall(both: list[Side]) -> Row:
    found: list[list[float]] = [[], []]
    for round_ in range(ROUNDS):
        for index, side in enumerate(both):
            found[index].append(await _worst_gap(side, round_))
    ratio = statistics.median(a / b for a, b in zip(*found, strict=True))
    texts = [f"{statistics.median(each):.2f}" for each in found]
    return Row("a chat beside 2,000-token prompts, worst gap, s", *texts, f"{ratio:.2f}", "<= 0.25")


async def _worst_gap(side: Side, salt: object) -> float:
    async def long_prompts() -> None:
        for number in range(1000):
            await side.ask(user(words(1900, f"l{salt}{number}")), 1, tenant="long")

    task = asyncio.create_task(long_prompts())
    try:
        await asyncio.sleep(0.3)
        return (await side.ask(user("Tell me a story."), TOKENS // 4, tenant="chat")).worst_gap
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _fairness(both: list[Side]) -> Row:
    found = []
    for side, (rounds, asked) in zip(both, FIRSTS, strict=True):
        found.append(statistics.median([await _beside_a_crowd(side, round_, asked) for round_ in range(rounds)]))
    texts = [f"{ratio:.1f}x" for ratio in found]
    return Row("tenant B beside A's 16 callers, TTFT against alone", *texts, f"{found[0] / found[1]:.2f}", "ours <= 3x")


async def _beside_a_crowd(side: Side, salt: object, asked: int) -> float:
    """B's worst time to first token, against its worst alone: an outlier that the machine made would count on one side
    or the other, so several rounds are needed."""
    alone = await _first_token(side, f"alone {salt}", asked)
    stop = asyncio.Event()

    async def busy(caller: int) -> None:
        for number in range(1000):
            if stop.is_set():
                return
            await side.ask(user(f"Tale {salt} {caller} {number}"), TOKENS, tenant="a")

    tasks = [asyncio.create_task(busy(caller)) for caller in range(16)]
    await asyncio.sleep(1)
    beside = await _first_token(side, f"beside {salt}", asked)
    stop.set()
    await asyncio.gather(*tasks)
    return beside / alone


async def _first_token(side: Side, salt: str, asked: int) -> float:
    """The worst of so many."""
    return max([(await side.ask(user(f"Question {salt} {n}?"), 4, tenant="b")).first for n in range(asked)])


async def _oversubscribed(ours: Side) -> Row:
    """Three times as many callers as slots, against as many; none may fail."""
    rates: list[list[float]] = [[], []]
    for round_ in range(ROUNDS):
        rates[0].append(await _tokens_per_second(ours, 48, 48, f"over {round_}"))
        rates[1].append(await _tokens_per_second(ours, 16, 48, f"even {round_}"))
    ratio = statistics.median(a / b for a, b in zip(*rates, strict=True))
    texts = [f"{statistics.median(rate):.0f}" for rate in rates]
    return Row("48 callers on 16 slots against 16, tokens/s", *texts, f"{ratio:.2f}, 0 failures", ">= 0.9")
