"""Tokens -> text as they come, never half a character."""

import codecs
from collections.abc import Collection, Sequence

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
