"""Echo's tokens: one whitespace-delimited word with the whitespace before it. Ids are the same in every process."""

import re
from collections import OrderedDict
from hashlib import blake2b

from tokenworks.core.errors import InvalidRequest

_WORD = re.compile(r"\s*\S+|\s+$")
_ID_BYTES = 6
"""48 bits: exact in every JSON reader, and two words of one vocabulary practically never share an id."""


def split(text: str) -> list[str]:
    """Joined again they are the text."""
    return _WORD.findall(text)


class Vocabulary:
    """Ids are hashes, so the way back is remembered: for the latest `size` words."""

    def __init__(self, size: int = 1_000_000) -> None:
        self._size = size
        self._words: OrderedDict[int, str] = OrderedDict()

    def id(self, word: str) -> int:
        number = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=_ID_BYTES).digest(), "big")
        self._words[number] = word
        self._words.move_to_end(number)
        if len(self._words) > self._size:
            self._words.popitem(last=False)
        return number

    def word(self, number: int) -> str:
        try:
            return self._words[number]
        except KeyError:
            raise InvalidRequest(f"{number} is not a token that this engine gave out.", param="prompt") from None
