"""Records of `POST kv_events`: what an engine holds, as it changes. The names and meanings are vLLM's.

`number` counts up by one from event to event; `epoch` is another one after each start of the engine. What is held comes
after `AllBlocksCleared`, in events of its number.
"""

from typing import Literal

import msgspec

Medium = Literal["slot", "ram", "disk"]
"""slot: of a sequence that runs; ram: the cache of prefixes; disk: in a file. A block may be in several."""


class Subscribe(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which events are wanted: those after number `after` of `epoch`. Without, or where some of them are not remembered
    any more, everything that is held comes first."""

    epoch: str = ""
    after: int = -1


class BlockStored(msgspec.Struct, tag="stored", frozen=True, omit_defaults=True):
    """`parent`: the block before the first one; None where it is not told."""

    number: int
    medium: Medium
    blocks: list[int]
    parent: int | None = None


class BlockRemoved(msgspec.Struct, tag="removed", frozen=True):
    number: int
    medium: Medium
    blocks: list[int]


class AllBlocksCleared(msgspec.Struct, tag="cleared", frozen=True):
    """Forget everything that was told. `block`: tokens of each."""

    number: int
    epoch: str
    block: int


class PromptNamed(msgspec.Struct, tag="prompt", frozen=True):
    """A prompt whose caller gave it `keys` (GenerateRequest.prefixes), and the blocks that it consists of."""

    number: int
    keys: list[int]
    blocks: list[int]


KVEvent = BlockStored | BlockRemoved | AllBlocksCleared | PromptNamed
