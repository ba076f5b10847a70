"""What blocks of tokens are called to the outside; see protocols/worker/blocks.py."""

from collections.abc import Sequence as Row
from dataclasses import dataclass

from tokenworks.protocols.worker import blocks
from tokenworks.worker.engines.llama.scheduling.sequence import Key


@dataclass(frozen=True, slots=True)
class Names:
    """`secret`: the cluster's, so that all its engines say the same, and nobody else can."""

    secret: str = ""

    def root(self, key: Key) -> int:
        """An adapter is called as its file is, on any machine."""
        tenant, adapter = key
        return blocks.root(self.secret, tenant, adapter.rpartition("@")[0])

    def prompt(self, key: Key, tokens: Row[int]) -> list[int]:
        return blocks.names(self.root(key), tokens)
