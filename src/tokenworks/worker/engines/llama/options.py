"""Options of this engine, and what they come to with these weights on this machine."""

from pathlib import Path
from typing import Annotated

import msgspec

from tokenworks.worker.engines.gguf import Metadata
from tokenworks.worker.engines.llama.binding import PINNED

DEFAULT_SLOTS = 16
DEFAULT_CONTEXT = 4096
LONGEST_TEXT = 8192
"""Tokens of a text that is measured, by default: the whole of it is one forward pass, whose memory grows with it."""
SMALLEST_CONTEXT = 256
SLOT_SHARE = 8
"""Slots may take one part in so many of the machine's memory ..."""
CACHE_SHARE = 8
"""... and so may the cache of prefixes beside them."""
LEAST_PROMPT = 16
"""Tokens of prompts that a step has room for beside the generating sequences, however slow the machine; more with many
slots, as prompts would else be computed later than slots get free."""
MEBIBYTE = 1 << 20
DIGEST = 64
"""Characters of the name of a cached file."""

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
    step: Annotated[float, msgspec.Meta(gt=0)] = 0.08
    """Seconds that a step may take with prompts in it: the longest that they hold others up."""
    queue: Count = 512
    """Sequences that may wait; more are refused."""
    cache: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """MiB of memory for keys and values of prefixes and of preempted sequences."""
    disk: Annotated[int, msgspec.Meta(ge=0)] = 0
    """MiB of files for keys and values, which outlive memory and restarts. They hold tokens of prompts."""
    disk_folder: str | None = None
    """Where they are."""
    disk_hours: Annotated[float, msgspec.Meta(gt=0)] = 24.0
    """For so long a file is kept that nobody uses."""
    lookup: bool = True
    """Guess what comes next from what was said before, where it gains: the same answers in fewer steps."""
    lookup_memory: Annotated[int, msgspec.Meta(ge=0)] = 32
    """MiB for what requests of a tenant share to guess from; 0: each guesses from itself alone."""
    draft: str | None = None
    """Weights of a smaller model with the same vocabulary that guesses, where it gains: a catalog name or a source."""
    adapters: str | None = None
    """A folder of LoRA adapters: each NAME.gguf in it is a model called NAME."""
    trace: str | None = None
    """A file for what the scheduler does, step by step. It holds tokens of prompts and answers."""
    prepare: bool = False
    """Before the first start, make a copy of the weights in the format that is fastest here, as `models optimize`."""
    gpu_layers: int = -1
    """-1: as many as fit."""
    chat_template: str | None = None
    """Name of a shipped template, or a file. None: the one in the weights."""


class DiskPlan(msgspec.Struct, frozen=True):
    """`limit`: bytes. `weights`: what the weights are known by. `keep`: seconds."""

    folder: str
    limit: int
    weights: str
    keep: float


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
    measures: bool = False
    """The weights make vectors or rankings, not text."""
    capabilities: tuple[str, ...] = ()
    max_output: int | None = None
    token: str = ""
    secret: str = ""
    log_level: str = "info"
    disk: DiskPlan | None = None
    trace: str | None = None
    adapters: str | None = None
    lookup_memory: int = 0
    """Bytes."""
    draft: str | None = None
    """A file."""


def context(options: Options, metadata: Metadata, known: int | None, memory: int, draft: Metadata | None = None) -> int:
    """Tokens of one slot: what was asked for; else the default, within the weights' training, the catalog's word and
    the share of `memory` (bytes) that slots may take, those of a draft model among them."""
    trained = min(filter(None, (metadata.context_length, known)), default=None)
    if options.context is not None:
        return min(options.context, trained) if trained else options.context
    found = min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT)
    if per_token := metadata.cache_bytes_per_token() + (draft.cache_bytes_per_token() if draft is not None else 0):
        affordable = memory // SLOT_SHARE // options.slots // per_token // 256 * 256
        found = min(found, max(affordable, SMALLEST_CONTEXT))
    return found


def longest_text(options: Options, metadata: Metadata, known: int | None) -> int:
    """Tokens of a text that is measured: what was asked for, else the default, within the weights' training."""
    trained = min(filter(None, (metadata.context_length, known)), default=None)
    wanted = options.context or LONGEST_TEXT
    return min(wanted, trained) if trained else wanted


def smallest_step(slots: int) -> int:
    """Tokens that a step has room for at least."""
    return slots + max(LEAST_PROMPT, slots // 2)


def cache(options: Options, memory: int) -> int:
    """Bytes for prefixes."""
    return memory // CACHE_SHARE if options.cache is None else options.cache * MEBIBYTE


def disk(options: Options, weights: Path) -> DiskPlan | None:
    """A cached file of weights is known by its digest, another one by its place, size and time."""
    if not options.disk or options.disk_folder is None:
        return None
    status = weights.stat()
    known = weights.name if len(weights.name) == DIGEST else f"{weights}|{status.st_size}|{status.st_mtime_ns}"
    return DiskPlan(options.disk_folder, options.disk * MEBIBYTE, f"{known}|{PINNED}", 3600 * options.disk_hours)
