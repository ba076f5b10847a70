"""What a charge costs a request: the simplest price, one with every kind and condition, and telling it to the caller.
Prints a table."""

import statistics
import time
from collections.abc import Callable
from fractions import Fraction

from tokenworks.core.price import Price, Tariff, When
from tokenworks.core.request import Conversation, Request
from tokenworks.core.usage import Usage
from tokenworks.gateway.metering.counting import judge
from tokenworks.protocols.base import Observation
from tokenworks.protocols.cost import in_answer, in_stream

ROUNDS = 5
TIMES = 20_000
TARGET = 5.0
"""Microseconds for one charge."""

SIMPLE = Price({"input": 150_000_000, "output": 600_000_000})
HALF = {"input": Fraction(1, 2), "output": Fraction(1, 2)}
UPLIFT = {"input": Fraction(11, 10), "output": Fraction(11, 10)}
LONG = {"input": Fraction(2), "output": Fraction(3, 2)}
FULL = Price(
    {"input": 2_000_000_000, "cached_input": 200_000_000, "cache_write": 2_500_000_000, "cache_write_1h": 5_000_000_000}
    | {"output": 10_000_000_000, "reasoning": 12_000_000_000, "input_audio": 40_000_000_000},
    [
        When(HALF, "batch"),
        When(HALF, "flex"),
        When(LONG, above=272_000),
        When({"input": Fraction(11, 10)}, region="eu"),
    ],
)
PLAIN = Usage(input=120, output=250)
MIXED = Usage(300_000, 200_000, 5_000, 900, 400, cache_write_1h=1_000, input_audio=50)
OVERRIDES = Tariff((SIMPLE,), Tariff((FULL,)))
WORDS = b'{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"' + b"word " * 200 + b'"}}],'
BODY = WORDS + b'"usage":{"prompt_tokens":120,"completion_tokens":250,"total_tokens":370}}'
LAST = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":120,"completion_tokens":250,"total_tokens":370}}\n\n'
REQUEST = Request("m", Conversation([]), "openai_chat", body=b"x" * 500, max_output_tokens=300)
SEEN = Observation(usage=PLAIN, deltas=250)


def _microseconds(work: Callable[[], object]) -> float:
    best = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(TIMES):
            work()
        best.append((time.perf_counter() - begin) / TIMES * 1e6)
    return statistics.median(best)


def main() -> None:
    rows = [
        ("charge: two kinds", lambda: SIMPLE.charge(PLAIN)),
        ("charge: every kind, long prompt, flex, region", lambda: FULL.charge(MIXED, "flex", "eu")),
        ("the version in force, an organization's own", lambda: OVERRIDES.at(1_800_000_000)),
        ("is the report plausible", lambda: judge(PLAIN, SEEN, REQUEST, local=False)),
        ("usage.cost in a whole answer of 1 kB, once", lambda: in_answer(BODY, 168_000)),
        ("usage.cost in a stream's last chunk, once", lambda: in_stream(LAST, lambda: 168_000)),
    ]
    print(f"\nPrices ({ROUNDS} rounds of {TIMES:,})\n\n| what | microseconds |\n|---|---|")
    times = [_microseconds(work) for _, work in rows]
    for (name, _), taken in zip(rows, times, strict=True):
        print(f"| {name} | {taken:.2f} |")
    print(f"\nTarget for one charge: {TARGET:g} us. {'Met' if max(times[:2]) <= TARGET else 'NOT met'}.")
