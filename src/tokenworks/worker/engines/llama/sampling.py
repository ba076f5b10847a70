"""Logits -> a token. Works on views of llama.cpp's memory, in place, and touches as little of them as it can.

The draw depends on nothing but (seed, choice, position): a request with a seed gives the same tokens whatever else is
in the batch, as far as its logits are the same. They are, but for the last bits: kernels may add up in another order in
a batch of another shape, which decides between tokens that are equally likely to about six digits.
"""

import hashlib
import secrets
import struct
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Row = npt.NDArray[np.float32]
_NOTHING = 30.0
"""Natural logarithm: what is less likely than the likeliest token by e to this is never drawn."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A temperature of 0 is greedy; top_k 0, top_p 1, min_p 0 and typical 1 are off."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    repetition: float = 1.0
    seed: int | None = None
    bias: dict[int, float] = field(default_factory=dict)
    banned: tuple[int, ...] = ()
    """Tokens that never come; such as those that end an answer which must not end."""
    banned_until: int = 0
    """Tokens that do not come before so many others; see `late`."""
    late: tuple[int, ...] = ()

    @property
    def penalizes(self) -> bool:
        return self.frequency != 0 or self.presence != 0 or self.repetition != 1


class Sampler:
    """For one choice. `prompt` counts for the repetition penalty only, as elsewhere."""

    def __init__(self, settings: Settings, index: int = 0, prompt: Sequence[int] = (), emitted: int = 0) -> None:
        """`emitted`: tokens of this answer that were drawn before, as the last ones of `prompt`."""
        self.settings = settings
        self.position = emitted
        self._seed = secrets.randbits(63) if settings.seed is None else settings.seed
        self._index = index
        self._counts: dict[int, int] = {}
        self._seen: set[int] = set(prompt) if settings.repetition != 1 else set()
        self._bias = _pairs(settings.bias)
        self._banned = np.array(settings.banned, np.int64)
        self._late = np.array(settings.late, np.int64)
        if settings.penalizes and emitted:
            for token in prompt[-emitted:]:
                self._count(token)

    def copy(self) -> "Sampler":
        """Of the same state, to try what would come."""
        found = copy(self)
        if self.settings.penalizes:
            found._counts, found._seen = dict(self._counts), set(self._seen)
        return found

    def sample(self, row: Row, allowed: npt.NDArray[np.bool_] | None = None) -> int:
        """A token of this row of logits, which is changed. `allowed`: the others cannot come."""
        settings = self.settings
        if self._bias is not None:
            row[self._bias[0]] += self._bias[1]
        if settings.penalizes:
            self._penalize(row)
        if len(self._banned):
            row[self._banned] = -np.inf
        if self.position < settings.banned_until:
            row[self._late] = -np.inf
        if allowed is not None:
            row[~allowed] = -np.inf
        return int(row.argmax()) if settings.temperature <= 0 else self._draw(row)

    def accept(self, token: int) -> None:
        """It is part of the answer now."""
        self.position += 1
        if self.settings.penalizes:
            self._count(token)

    def _count(self, token: int) -> None:
        self._counts[token] = self._counts.get(token, 0) + 1
        self._seen.add(token)

    def _penalize(self, row: Row) -> None:
        settings = self.settings
        if settings.repetition != 1 and self._seen:
            seen = np.fromiter(self._seen, np.int64, len(self._seen))
            values = row[seen]
            row[seen] = np.where(values > 0, values / settings.repetition, values * settings.repetition)
        if self._counts and (settings.frequency or settings.presence):
            tokens = np.fromiter(self._counts, np.int64, len(self._counts))
            counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
            row[tokens] -= counts * settings.frequency + settings.presence

    def _draw(self, row: Row) -> int:
        tokens, chances = _candidates(row, self.settings)
        if self.settings.typical < 1:
            tokens, chances = _typical(tokens, chances, self.settings.typical)
        bounds = np.cumsum(chances)
        at = np.searchsorted(bounds, self._chance() * bounds[-1], side="right")
        return int(tokens[min(int(at), len(tokens) - 1)])

    def _chance(self) -> float:
        """In [0, 1): made of seed, choice and position, and nothing else."""
        raw = struct.pack("<qqq", self._seed % 2**63, self._index, self.position)
        (number,) = struct.unpack("<Q", hashlib.blake2b(raw, digest_size=8).digest())
        return float(number >> 11) / float(1 << 53)


def _pairs(bias: dict[int, float]) -> tuple[npt.NDArray[np.int64], Row] | None:
    if not bias:
        return None
    return np.array(list(bias), np.int64), np.array(list(bias.values()), np.float32)


def _candidates(row: Row, settings: Settings) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The tokens that may be drawn, the likeliest first, and their chances (not normalized after cutting)."""
    temperature = settings.temperature
    top = float(row.max())
    floor = _NOTHING if settings.min_p <= 0 else min(_NOTHING, -float(np.log(settings.min_p)))
    tokens = np.flatnonzero(row >= top - floor * temperature)
    if not len(tokens):  # every logit is the same infinity
        tokens = np.array([int(row.argmax())])
    if 0 < settings.top_k < len(tokens):
        kept = np.argpartition(row[tokens], -settings.top_k)[-settings.top_k :]
        tokens = tokens[kept]
    logits = row[tokens].astype(np.float64)
    order = np.argsort(-logits, kind="stable")
    tokens, logits = tokens[order], logits[order]
    chances = np.exp((logits - top) / temperature)
    chances /= chances.sum()
    if settings.top_p < 1:
        keep = int(np.searchsorted(np.cumsum(chances), settings.top_p)) + 1
        tokens, chances = tokens[:keep], chances[:keep]
    return tokens, chances


def _typical(
    tokens: npt.NDArray[np.int64], chances: npt.NDArray[np.float64], mass: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Those whose surprise is nearest to the expected one, until they have `mass` together."""
    surprise = -np.log(chances / chances.sum())
    expected = float((chances / chances.sum() * surprise).sum())
    order = np.argsort(np.abs(surprise - expected), kind="stable")
    keep = int(np.searchsorted(np.cumsum(chances[order]), mass * chances.sum())) + 1
    return tokens[order[:keep]], chances[order[:keep]]


def logprobs(row: Row, token: int, alternatives: int) -> tuple[float, list[tuple[int, float]]]:
    """Of `token`, and of the likeliest ones; of the model's own distribution, before anything is done to it."""
    top = float(row.max())
    total = top + float(np.log(np.exp(row - top, dtype=np.float32).sum(dtype=np.float64)))
    best: list[tuple[int, float]] = []
    if alternatives:
        found = np.argpartition(row, -alternatives)[-alternatives:]
        found = found[np.argsort(-row[found], kind="stable")]
        best = [(int(one), float(row[one]) - total) for one in found]
    return float(row[token]) - total, best
