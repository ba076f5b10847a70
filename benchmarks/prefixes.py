"""What comes from the caches of two replicas of ours, with a gateway that hears what they hold and with one that does
not; and what telling it costs an engine."""

import io
import random
import time
from contextlib import ExitStack, redirect_stdout

from rich.console import Console
from rich.table import Table
from tests.gateway.conftest import Loop
from tests.gateway.two_replicas import DEAF, LISTENS, fleet, rate

from tokenworks.core.request import Request
from tokenworks.gateway.routing.prompt_keys import prompt_keys
from tokenworks.protocols import codec
from tokenworks.worker.engines.kv_events import KVEvents
from tokenworks.worker.engines.llama.scheduling.prefixes import Prefixes

SYSTEMS, CONVERSATIONS, ROUNDS = 4, 20, 3
PROMPT, PROMPTS = 1_000, 300
"""Tokens of each prompt that is stored."""


class _Cells:
    def __init__(self, size: int) -> None:
        self.size = size

    def part(self, begin: int, end: int) -> "_Cells":
        return _Cells(end - begin)


def main() -> None:
    table = Table("two replicas", "without events", "with", "", title="what comes from the caches")
    with redirect_stdout(io.StringIO()), ExitStack() as stack:  # gateways that end print their logs
        loop = Loop()
        stack.callback(loop.close)
        (deaf, listens), _ = stack.enter_context(fleet(loop, DEAF, LISTENS, cache=16))
        rounds = [(rate(deaf, SYSTEMS, CONVERSATIONS), rate(listens, SYSTEMS, CONVERSATIONS)) for _ in range(ROUNDS)]
    without, with_ = (sum(column) / ROUNDS for column in zip(*rounds, strict=True))
    table.add_row("share of prompt tokens", f"{without:.2f}", f"{with_:.2f}", f"{with_ / without:.2f}x")
    console = Console()
    console.print(table)
    silent, telling = (min(_stored(listener) for _ in range(5)) for listener in (None, KVEvents()))
    console.print(f"storing a prompt of {PROMPT} tokens: {silent:.0f} us; telling it: {telling - silent:.0f} us more")
    console.print(f"names of a prompt at a gateway: of 4 kB {_named(4_000):.0f} us, of 400 kB {_named(400_000):.0f} us")


def _stored(listener: KVEvents | None) -> float:
    """Microseconds for each prompt."""
    rng = random.Random(1)
    prefixes = Prefixes(PROMPT * PROMPTS // 4, (), listener)
    prompts = [[rng.randrange(49_000) for _ in range(PROMPT)] for _ in range(PROMPTS)]
    begun = time.perf_counter()
    for tokens in prompts:
        prefixes.insert(("tenant", ""), tokens, PROMPT, lambda begin, end: _Cells(end - begin))
    return (time.perf_counter() - begun) / PROMPTS * 1e6


def _named(size: int) -> float:
    text = "x" * (size // 10)
    messages = ", ".join(f'{{"role": "user", "content": "{text}"}}' for _ in range(10))
    request: Request = codec("openai_chat").decode_request(f'{{"model": "m", "messages": [{messages}]}}'.encode())
    begun = time.perf_counter()
    for _ in range(100):
        prompt_keys(request, "project")
    return (time.perf_counter() - begun) / 100 * 1e6


if __name__ == "__main__":
    main()
