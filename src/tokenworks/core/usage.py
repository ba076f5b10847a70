"""Token counts of one attempt, by kind."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Disjoint input kinds, so that a bill is a sum.

    `input` excludes what was read from or written to a prompt cache (Anthropic's meaning); OpenAI's
    `prompt_tokens` is `prompt`. `reasoning` is a part of `output`, not an addition to it.
    """

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def prompt(self) -> int:
        return self.input + self.cached_input + self.cache_write

    @property
    def total(self) -> int:
        return self.prompt + self.output
