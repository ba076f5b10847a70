"""Keeps what people write apart from the model's special tokens: a `<|im_start|>` in somebody's message is text, and
must not begin a message of another role.

Before the template runs, the first character of every special token in a message is replaced by a stand-in that no text
has; afterwards the prompt is cut at the stand-ins into pieces that are tokenized with special tokens, and such without.
"""

import re
from collections.abc import Collection

_STAND_INS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Unicode's noncharacters: never part of a text that means something."""
_NONCHARACTERS = re.compile("[\ufdd0-\ufdef]")


class Guard:
    """`tokens` are the texts of the model's special tokens."""

    def __init__(self, tokens: Collection[str]) -> None:
        firsts = sorted({token[0] for token in tokens if token})[: len(_STAND_INS)]
        self._stand_in = dict(zip(firsts, _STAND_INS, strict=False))
        self._first = {stand_in: first for first, stand_in in self._stand_in.items()}
        guarded = sorted((token for token in tokens if token[:1] in self._stand_in), key=len, reverse=True)
        self._tokens = re.compile("|".join(map(re.escape, guarded))) if guarded else None
        self._cut = re.compile(f"([{''.join(self._first)}])") if guarded else None

    def hide(self, text: str) -> str:
        text = _NONCHARACTERS.sub("\ufffd", text)
        return self._tokens.sub(self._hidden, text) if self._tokens else text

    def _hidden(self, match: re.Match[str]) -> str:
        token = match[0]
        return self._stand_in[token[0]] + token[1:]

    def pieces(self, prompt: str) -> list[tuple[str, bool]]:
        """[(text, whether special tokens in it are special)]; their texts in a row are what `hide` was given."""
        if self._cut is None:
            return [(prompt, True)] if prompt else []
        found = [(self._first.get(piece, piece), piece not in self._first) for piece in self._cut.split(prompt)]
        return [(text, special) for text, special in found if text]
