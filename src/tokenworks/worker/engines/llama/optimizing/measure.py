"""How fast and how good a file of weights is here: run as a process of its own, since native code may die.

python -m tokenworks.worker.engines.llama.optimizing.measure WEIGHTS THREADS TEXT [quality]    -> a line of JSON
"""

import math
import statistics
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from tokenworks.models.optimized import Figures
from tokenworks.worker.engines.llama.kernel import Kernel
from tokenworks.worker.engines.llama.model import Model
from tokenworks.worker.engines.llama.scheduling.sequence import Sequence, Work

WINDOW = 512
"""Tokens that are judged together; the first quarter of them is only read."""
ANSWER = 32
MANY, TURN = 16, 64
"""Answers at once, and tokens before each of them."""
MANY_STEPS = 8


def main() -> None:
    weights, threads, text, *quality = sys.argv[1:]
    model = Model(Path(weights))
    kernel = Kernel(model, slots=MANY, capacity=WINDOW + ANSWER, batch=WINDOW, threads=int(threads))
    tokens = model.tokenize(Path(text).read_text(encoding="utf-8"), first=True)
    bos = [model.bos] if model.adds_bos and model.bos >= 0 else []
    prefill, decode = _speed(kernel, tokens)
    figures = Figures(
        prefill, decode, _speed_of_many(kernel, tokens), _perplexity(kernel, tokens, bos) if quality else 0.0
    )
    sys.stdout.buffer.write(msgspec.json.encode(figures) + b"\n")


def _perplexity(kernel: Kernel, tokens: list[int], bos: list[int]) -> float:
    """exp of the mean negative log-likelihood of the tokens after each window's first quarter."""
    losses: list[float] = []
    step = WINDOW - len(bos)
    for begin in range(0, len(tokens) - step // 2, step):
        window = bos + tokens[begin : begin + step]
        kernel.clear(0)
        rows = kernel.compute([Work(Sequence(window[:1], WINDOW, slot=0), 0, 1, True, window[1:])])[0]
        assert rows is not None  # noqa: S101 -- it samples
        for at in range(len(window) // 4, len(window) - 1):
            row = rows[at].astype(np.float64)
            top = row.max()
            losses.append(float(top + np.log(np.exp(row - top).sum()) - row[window[at + 1]]))
    return math.exp(statistics.fmean(losses))


def _speed(kernel: Kernel, tokens: list[int]) -> tuple[float, float]:
    """Tokens per second of a prompt that fills the window, and of one answer after it."""
    prompt = tokens[:WINDOW]
    sequence = Sequence(list(prompt), WINDOW + ANSWER, slot=0)
    kernel.clear(0)
    began = time.perf_counter()
    kernel.compute([Work(sequence, 0, len(prompt), True, [])])
    read = time.perf_counter()
    for at in range(len(prompt), len(prompt) + ANSWER):
        sequence.tokens.append(tokens[at])
        kernel.compute([Work(sequence, at, at + 1, True, [])])
    return len(prompt) / (read - began), ANSWER / (time.perf_counter() - read)


def _speed_of_many(kernel: Kernel, tokens: list[int]) -> float:
    """Tokens per second of all together: how a provider's answers are computed, and another order of formats than one
    answer gives, which waits for memory and not for arithmetic."""
    sequences = [Sequence(tokens[slot : slot + TURN], WINDOW, slot=slot) for slot in range(MANY)]
    for sequence in sequences:
        kernel.clear(sequence.slot)
        kernel.compute([Work(sequence, 0, TURN, False, [])])
    began = time.perf_counter()
    for at in range(TURN, TURN + MANY_STEPS):
        for sequence in sequences:
            sequence.tokens.append(tokens[at])
        kernel.compute([Work(sequence, at, at + 1, True, []) for sequence in sequences])
    return MANY * MANY_STEPS / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
