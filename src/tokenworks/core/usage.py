"""What one attempt took, by kind: tokens, and the units that are sold beside them."""

from dataclasses import dataclass, fields

MOST = 1_000_000_000
"""Of one kind, in one request."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Four disjoint kinds of tokens, of which the others are parts, and units.

    `input` excludes what was read from or written to a prompt cache (Anthropic's meaning); OpenAI's
    `prompt_tokens` is `prompt`. Parts: `cache_write_1h` of `cache_write` (kept for an hour or longer),
    `input_audio` and `input_image` of `input`, `reasoning`, `output_audio` and `output_image` of `output`.
    The parts of one kind are disjoint. Units are counted where they are sold: requests (where the
    price has a fee for each), milliseconds of audio, images, milliseconds of a GPU.
    """

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    cache_write_1h: int = 0
    input_audio: int = 0
    input_image: int = 0
    output_audio: int = 0
    output_image: int = 0
    priced_requests: int = 0
    audio_ms: int = 0
    images: int = 0
    gpu_ms: int = 0

    @property
    def is_plausible(self) -> bool:
        """What nobody can have taken is no report: a count below zero would pay the caller."""
        return all(0 <= getattr(self, kind) <= MOST for kind in KINDS)

    @property
    def prompt(self) -> int:
        return self.input + self.cached_input + self.cache_write

    @property
    def total(self) -> int:
        return self.prompt + self.output

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*[getattr(self, kind) + getattr(other, kind) for kind in KINDS])


KINDS = tuple(field.name for field in fields(Usage))
"""In the order of the fields, which never changes: kinds are only added at the end."""
