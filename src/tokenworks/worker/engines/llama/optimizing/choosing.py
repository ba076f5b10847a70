"""The fastest copy of some weights that is about as good: made, measured beside the original, and kept if it gains."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tokenworks.models import optimized
from tokenworks.models.catalog import Entry
from tokenworks.models.optimized import Figures
from tokenworks.models.progress import Progress
from tokenworks.worker.engines import machine
from tokenworks.worker.engines.llama.optimizing.requantize import CannotRequantize, format_of, requantize

PROMPT, ANSWER = 512, 128
"""Tokens of the request that formats are compared by, as one of many."""
LEAST_GAIN = 1.05
"""What is less is noise, and not worth the disk."""
SPEEDS = ("prefill", "decode", "many")
TURNS = 6
LIMIT_SECONDS = 3600.0
TEXT = Path(__file__).with_name("sample.txt")
"""Prose and code of this project: no weights were trained on it."""


@dataclass(frozen=True)
class Candidate:
    format: str
    size: int
    """Bytes."""
    figures: Figures
    original: "Candidate | None" = None

    @property
    def seconds(self) -> float:
        """Its share of the time that many of the request take at once."""
        return PROMPT / self.figures.prefill + ANSWER / self.figures.many

    @property
    def gain(self) -> float:
        """How many times as fast as the original."""
        return self.original.seconds / self.seconds if self.original else 1.0

    @property
    def loss(self) -> float:
        """By how much its perplexity is above the original's: 0.02 is two percent."""
        return self.figures.perplexity / self.original.figures.perplexity - 1 if self.original else 0.0


@dataclass(frozen=True)
class Choice:
    candidates: Sequence[Candidate]
    """The original first."""
    best: Candidate
    path: Path


def choose(
    entry: Entry,
    original: Path,
    cache_dir: Path,
    *,
    formats: Sequence[str],
    most_loss: float,
    progress: Callable[[str], Progress],
    text: Path = TEXT,
) -> Choice:
    """Keeps the best candidate in the cache, or nothing when the original is best. `text`: at least 512 tokens.

    Within `optimized.making`. CannotRequantize also when a file cannot be measured; WeightsError for the cache;
    OSError for the disk.
    """
    formats = [name for name in formats if name != (begun := format_of(original))]
    size = original.stat().st_size
    # In 8 bits at most twice the size of a file in 4.
    folder = optimized.workplace(entry, cache_dir, 2 * size * len(formats))
    files = {begun: original} | {name: folder / f"{name}.gguf" for name in formats}
    try:
        for name in formats:
            requantize(original, files[name], name, progress(f"writing {name}"))
        figures = _measured(files, text, progress("measuring"))
        first = Candidate(begun, size, figures[begun])
        others = [Candidate(name, files[name].stat().st_size, figures[name], first) for name in formats]
        best = pick(first, others, most_loss)
        if best is first:
            optimized.keep_original(entry, original, cache_dir)
            return Choice([first, *others], best, original)
        kept = optimized.place(entry, original, files[best.format], best.format, cache_dir)
        return Choice([first, *others], best, kept)
    finally:
        optimized.discard_work(entry, cache_dir)


def pick(original: Candidate, others: Sequence[Candidate], most_loss: float) -> Candidate:
    """The fastest of those that lose at most `most_loss`; the original unless something gains."""
    fit = [one for one in others if one.gain >= LEAST_GAIN and one.loss <= most_loss]
    return max(fit, key=lambda one: one.gain, default=original)


def _measured(files: dict[str, Path], text: Path, progress: Progress) -> dict[str, Figures]:
    """Turn by turn, the best of each: what else runs here slows each of them down at some time, and none for ever."""
    found: dict[str, Figures] = {}
    for turn in range(TURNS):
        for number, (name, path) in enumerate(files.items()):
            progress(turn * len(files) + number, TURNS * len(files))
            got = _run(path, text, *(["quality"] if turn == 0 else []))
            before = found.setdefault(name, got)
            prefill, decode, many = (max(getattr(before, one), getattr(got, one)) for one in SPEEDS)
            found[name] = Figures(prefill, decode, many, before.perplexity)
    return found


def _run(weights: Path, text: Path, *more: str) -> Figures:
    module, threads = f"{__package__}.measure", machine.threads(None)
    command = [sys.executable, "-m", module, str(weights), str(threads), str(text), *more]
    try:
        done = subprocess.run(command, capture_output=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise CannotRequantize(f"measuring {weights} took more than {LIMIT_SECONDS:.0f} seconds") from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise CannotRequantize(f"{weights} cannot be measured: {last[0]}")
    return msgspec.json.decode(done.stdout, type=Figures)
