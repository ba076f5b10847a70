"""Options of this engine, and what they come to with these weights on this machine."""

from typing import Annotated

import msgspec

from tokenworks.worker.engines.gguf import Metadata

DEFAULT_SLOTS = 16
DEFAULT_CONTEXT = 4096
SMALLEST_CONTEXT = 256
SLOT_SHARE = 8
"""Slots may take one part in so many of the machine's memory ..."""
CACHE_SHARE = 8
"""... and so may the cache of prefixes beside them."""
SMALLEST_STEP = 32
"""Tokens of prompts that a step has room for beside the generating sequences, however slow the machine."""
MEBIBYTE = 1 << 20

Count = Annotated[int, msgspec.Meta(ge=1)]


class Options(msgspec.Struct, frozen=True):
    """None: chosen by the machine and the weights."""

    slots: Annotated[int, msgspec.Meta(ge=1, le=256)] = DEFAULT_SLOTS
    """Sequences that are computed at the same time."""
    context: Annotated[int, msgspec.Meta(ge=SMALLEST_CONTEXT)] | None = None
    """Tokens of one sequence, prompt and answer."""
    threads: Count | None = None
    batch: Annotated[int, msgspec.Meta(ge=32)] = 512
    """The most tokens of one step."""
    step: Annotated[float, msgspec.Meta(gt=0)] = 0.15
    """Seconds that a step may take with prompts in it: the longest that they hold others up."""
    queue: Count = 512
    """Sequences that may wait; more are refused."""
    cache: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """MiB of memory for keys and values of prefixes and of preempted sequences."""
    lookup: bool = True
    """Guess what repeats itself, where it gains: the same answers in fewer steps."""
    gpu_layers: int = -1
    """-1: as many as fit."""
    chat_template: str | None = None
    """Name of a shipped template, or a file. None: the one in the weights."""


class Plan(msgspec.Struct, frozen=True):
    """All that the child process needs: one JSON line on its standard input. `parent` is the worker's process id."""

    model: str
    weights: str
    address: str
    slots: int
    context: int
    threads: int
    batch: int
    step: float
    queue: int
    cache: int
    """Bytes."""
    gpu_layers: int
    template: str | None
    lookup: bool
    parent: int
    capabilities: tuple[str, ...] = ()
    max_output: int | None = None
    token: str = ""
    log_level: str = "info"


def context(options: Options, metadata: Metadata, known: int | None, memory: int) -> int:
    """Tokens of one slot: what was asked for; else the default, within the weights' training, the catalog's word and
    the share of `memory` (bytes) that slots may take."""
    trained = min(filter(None, (metadata.context_length, known)), default=None)
    if options.context is not None:
        return min(options.context, trained) if trained else options.context
    found = min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT)
    if per_token := metadata.cache_bytes_per_token():
        affordable = memory // SLOT_SHARE // options.slots // per_token // 256 * 256
        found = min(found, max(affordable, SMALLEST_CONTEXT))
    return found


def cache(options: Options, memory: int) -> int:
    """Bytes for prefixes."""
    return memory // CACHE_SHARE if options.cache is None else options.cache * MEBIBYTE
