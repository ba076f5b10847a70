"""What one attempt took, by kind: tokens, and the units that are sold beside them."""

from dataclasses import dataclass, fields
from operator import add, attrgetter

BYTES_PER_TOKEN = 4
"""Of a request's body, as a rule of thumb."""
MOST = 1_000_000_000
"""Of one kind, in one request."""


@dataclass(slots=True, unsafe_hash=True)
class Usage:
    """Never changed once made; it is not frozen because that makes it six times as dear to make, and a request makes
    a dozen.

    Four disjoint kinds of tokens, of which the others are parts, and units.

    `input` excludes what was read from or written to a prompt cache (Anthropic's meaning); OpenAI's
    `prompt_tokens` is `prompt`. Parts: `cache_write_1h` of `cache_write` (kept for an hour or longer),
    `input_audio` and `input_image` of `input`, `reasoning`, `output_audio` and `output_image` of `output`.
    The parts of one kind are disjoint. Units: requests (where the price has a fee for each), milliseconds
    of audio and images that were sent to the upstream, milliseconds that an engine of ours computed.
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
        counts: tuple[int, ...] = _fields(self)
        return min(counts) >= 0 and max(counts) <= MOST

    @property
    def prompt(self) -> int:
        return self.input + self.cached_input + self.cache_write

    @property
    def total(self) -> int:
        return self.prompt + self.output

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*map(add, _fields(self), _fields(other)))


KINDS = tuple(field.name for field in fields(Usage))
"""In the order of the fields, which never changes: kinds are only added at the end."""
_fields = attrgetter(*KINDS)
