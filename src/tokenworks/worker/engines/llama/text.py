"""Tokens -> text as they come, never half a character."""

import codecs
from collections.abc import Collection, Sequence

from tokenworks.core.errors import InvalidRequest
from tokenworks.worker.engines.llama.model import Model

_UTF8 = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """For one choice. `pieces`: bytes of each token; `hidden`: tokens that are not shown."""

    def __init__(self, pieces: Sequence[bytes], hidden: Collection[int]) -> None:
        self._pieces = pieces
        self._hidden = hidden
        self._decoder = _UTF8("replace")

    def feed(self, token: int) -> str:
        """The characters that this token completes; bytes that are none become U+FFFD, and one that is never completed
        is never shown."""
        return "" if token in self._hidden else self._decoder.decode(self._pieces[token])


def spelled(model: Model, tokens: Sequence[int]) -> str:
    """InvalidRequest for an id that is no token."""
    for token in tokens:
        if not 0 <= token < model.tokens:
            raise InvalidRequest(f"{token} is no token of this model: 0 to {model.tokens - 1}.", param="ids")
    return b"".join(model.pieces[token] for token in tokens).decode("utf-8", "replace")
