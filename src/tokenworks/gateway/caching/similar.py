"""What was asked before in other words: the last message of a conversation is similar, all else is equal.

A note beside the answers has the key of an answer and the vector of the text that it was given to. Whatever goes wrong
is a miss: nothing here may fail a request.
"""

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenworks.core.caller import Caller
from tokenworks.core.errors import TokenworksError
from tokenworks.core.messages import Role, Text
from tokenworks.core.request import Conversation, Request
from tokenworks.gateway.caching.flights import Found
from tokenworks.gateway.caching.stores import Kept, Store

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

Embed = Callable[[str, str, Caller], Awaitable[list[float]]]
"""(model, text, whose request it is) -> a vector. TokenworksError when there is none."""

EMBED_SECONDS = 2.0
LONGEST_TEXT = 32_768
"""Characters of a message that is compared."""
MOST_TRIED = 3
"""The most similar of those that are similar enough, while their answers are gone or may not be given."""
_HEAD = 32
"""Bytes of a key at the beginning of a note."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """A text among those of one prefix, and how similar another has to be, from 0 to 1."""

    prefix: str
    text: str
    embedder: str
    threshold: float


def text_of(request: Request, hottest: float) -> str | None:
    """The text that is compared; None for what is only answered to the very same: tools, pictures, several choices, a
    last message that is not the user's, a line of a batch, a temperature above `hottest` (1 where none is said)."""
    task, temperature = request.task, request.sampling.temperature
    if not isinstance(task, Conversation) or task.tools or request.n > 1 or request.batch or not task.messages:
        return None
    if (
        (1.0 if temperature is None else temperature) > hottest
        or request.own
        or task.messages[-1].role is not Role.USER
    ):
        return None
    if not all(isinstance(part, Text) for message in task.messages for part in message.parts):
        return None
    text = "\n".join(part.text for part in task.messages[-1].parts if isinstance(part, Text))
    return text if text.strip() and len(text) <= LONGEST_TEXT else None


class Similar:
    """Of one gateway. `find`, then `note` with the vector that it found."""

    def __init__(self, store: Store, embed: Embed) -> None:
        self._store = store
        self._embed = embed

    async def vector(self, asked: Asked, caller: Caller) -> "NDArray[float32] | None":
        """Of length one; None: a miss."""
        import numpy as np  # 25 MB, wanted where similar answers are given only

        try:
            async with asyncio.timeout(EMBED_SECONDS):
                vector = np.asarray(await self._embed(asked.embedder, asked.text, caller), np.float32)
        except (TokenworksError, TimeoutError, ValueError) as error:
            log.warning("%s embeds nothing for the cache: %s", asked.embedder, error or "no answer in time")
            return None
        length = float(np.linalg.norm(vector))
        return vector / length if vector.ndim == 1 and 0.0 < length < float("inf") else None

    async def find(self, asked: Asked, vector: "NDArray[float32]", good: Callable[[Kept], bool]) -> Found | None:
        """The answer to the most similar text, of those whose answers are `good`."""
        import numpy as np

        notes = [note for note in await self._store.notes(asked.prefix) if len(note) == _HEAD + vector.nbytes]
        if not notes:
            return None
        known = np.frombuffer(b"".join(note[_HEAD:] for note in notes), np.float32).reshape(len(notes), -1)
        similarities = known @ vector
        for at in np.argsort(-similarities, kind="stable")[:MOST_TRIED]:
            similarity = min(float(similarities[at]), 1.0)
            if similarity < asked.threshold:
                break
            kept = await self._store.get(notes[at][:_HEAD].hex())
            if kept is not None and good(kept):
                return Found(kept, similarity)
        return None

    async def note(self, asked: Asked, vector: "NDArray[float32]", key: str, seconds: int) -> None:
        await self._store.note(asked.prefix, struct.pack(f"{_HEAD}s", bytes.fromhex(key)) + vector.tobytes(), seconds)
