"""Options of this engine -> the plan that its child process carries out. The defaults' reasons and measurements are
in docs/decisions/0002-llama-server-settings.md.
"""

from typing import Annotated

import msgspec

from tokenworks.worker.engines.gguf import Metadata

DEFAULT_SLOTS = 16
DEFAULT_CONTEXT = 4096
SMALLEST_CONTEXT = 512
CACHE_SHARE = 8
"""The key-value cache may take one part in so many of the machine's memory."""

Count = Annotated[int, msgspec.Meta(ge=1)]


class Options(msgspec.Struct, frozen=True):
    """None: chosen by the machine and the weights."""

    slots: Count = DEFAULT_SLOTS
    """Requests that are answered at the same time; others wait in the engine."""
    context: Annotated[int, msgspec.Meta(ge=SMALLEST_CONTEXT)] | None = None
    """Tokens of one request, prompt and answer."""
    threads: Count | None = None
    poll: Annotated[int, msgspec.Meta(ge=0, le=100)] = 50
    """How eagerly idle threads spin for work, in percent; without effect in builds with OpenMP."""
    batch: Count = 512
    ubatch: Count = 512
    gpu_layers: int = -1
    """-1: as many as fit."""
    chat_template: str | None = None
    """Name of a shipped template, or a file. None: the one in the weights."""
    verbosity: Annotated[int, msgspec.Meta(ge=0, le=5)] = 2
    """2: warnings and errors."""


class Plan(msgspec.Struct, frozen=True):
    """All that the child needs: one JSON line on its standard input. `parent` is the worker's process id."""

    model: str
    weights: str
    host: str
    port: int
    slots: int
    context: int
    threads: int
    poll: int
    batch: int
    ubatch: int
    gpu_layers: int
    verbosity: int
    chat_template: str | None
    parent: int
    projector: str | None = None
    """The file that turns images into tokens of these weights."""
    token: str = ""


def context_per_slot(options: Options, metadata: Metadata, known: int | None, memory: int) -> int:
    """Tokens of one slot: what was asked for; else the default, within the weights' training, the catalog's word and
    the share of `memory` (bytes) that the cache may take."""
    trained = min(filter(None, (metadata.context_length, known)), default=None)
    if options.context is not None:
        return min(options.context, trained) if trained else options.context
    context = min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT)
    if per_token := metadata.cache_bytes_per_token():
        affordable = memory // CACHE_SHARE // options.slots // per_token // 256 * 256
        context = min(context, max(affordable, SMALLEST_CONTEXT))
    return context
