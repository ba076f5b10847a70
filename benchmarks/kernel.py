"""What llama.cpp's forward passes alone do with a load: no scheduler, no cache, no HTTP, nobody who reads along.

python -m benchmarks.kernel WEIGHTS THREADS SLOTS CONTEXT CALLERS    -> output tokens/s
"""

import asyncio
import sys
import time
from pathlib import Path

from tokenworks.worker.engines.llama.kernel import Kernel
from tokenworks.worker.engines.llama.model import Model
from tokenworks.worker.engines.llama.scheduling.sequence import Sequence, Work

SHARED, PROMPT, OUTPUT = 30, 18, 48
"""Tokens of a request as tenants.py asks: before the prompt the template's own, which are computed once for all."""
TOGETHER = 28
"""Prompts in a forward pass: as many as fit into the engine's largest step."""


async def alone(weights: Path, slots: int, context: int, callers: int, threads: int = 2) -> float:
    """In a process of its own, since its threads would go on waiting in this one."""
    arguments = [str(weights), *map(str, (threads, slots, context, callers))]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    told, _ = await process.communicate()
    return float(told)


def main() -> None:
    weights, (threads, slots, context, callers) = sys.argv[1], map(int, sys.argv[2:])
    kernel = Kernel(Model(Path(weights)), slots=slots, capacity=context, batch=512, threads=threads)
    sequences = [Sequence(list(range(100, 100 + SHARED + PROMPT)), context, slot=slot) for slot in range(callers)]
    groups = [sequences[begin : begin + TOGETHER] for begin in range(0, callers, TOGETHER)]
    for group in groups:
        kernel.compute([Work(sequence, 0, SHARED, False, []) for sequence in group[:16]])
        if group[16:]:
            kernel.compute([Work(sequence, 0, SHARED, False, []) for sequence in group[16:]])
    begun = time.perf_counter()
    for group in groups:
        kernel.compute([Work(sequence, SHARED, SHARED + PROMPT, True, []) for sequence in group])
    for token in range(OUTPUT - 1):
        end = SHARED + PROMPT + token
        for sequence in sequences:
            sequence.tokens.append(500 + token)
        kernel.compute([Work(sequence, end, end + 1, True, []) for sequence in sequences])
    print(callers * OUTPUT / (time.perf_counter() - begun))


if __name__ == "__main__":
    main()
