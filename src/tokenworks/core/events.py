"""What an upstream says while it answers. A whole answer is the fold of its events."""

from dataclasses import dataclass
from enum import StrEnum

from tokenworks.core.errors import TokenworksError
from tokenworks.core.usage import Usage


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@dataclass(slots=True)
class TokenLogprob:
    """`top` holds the alternatives as (token, logprob, bytes)."""

    token: str
    logprob: float
    bytes: list[int] | None
    top: list[tuple[str, float, list[int] | None]]


@dataclass(slots=True)
class Started:
    """The upstream accepted: its own response id, the model that really answers, and at which tier where it says so.
    `prompt` is what it says already of its input."""

    id: str
    model: str
    service_tier: str | None = None
    prompt: Usage | None = None


@dataclass(slots=True)
class TextDelta:
    text: str
    index: int = 0
    logprobs: list[TokenLogprob] | None = None


@dataclass(slots=True)
class RefusalDelta(TextDelta):
    """Text with which the model refuses; a protocol without refusals shows it as text."""


@dataclass(slots=True)
class ReasoningDelta:
    """`signature` and `encrypted` are the provider's own proof; they come with an empty text or its last part."""

    text: str
    index: int = 0
    signature: str | None = None
    encrypted: str | None = None


@dataclass(slots=True)
class SummaryDelta(ReasoningDelta):
    """A summary of the reasoning, shown in its place; a protocol without summaries shows it as reasoning."""


@dataclass(slots=True)
class ToolCallDelta:
    """Part of call number `call` of choice `index`; `id` and `name` come with its first part only."""

    call: int
    arguments: str
    id: str | None = None
    name: str | None = None
    index: int = 0


@dataclass(slots=True)
class Vector:
    """The embedding of input number `index`."""

    index: int
    values: list[float]


@dataclass(slots=True)
class Ranked:
    """Document number `index` has this relevance; they come in falling order of it."""

    index: int
    score: float


@dataclass(slots=True)
class UsageReport:
    """Replaces every earlier report of the same attempt."""

    usage: Usage


@dataclass(slots=True)
class Working:
    """How long an engine of ours has computed for this answer so far, in milliseconds. For the meter alone."""

    gpu_ms: int


@dataclass(slots=True)
class Finished:
    reason: FinishReason
    index: int = 0
    stop_sequence: str | None = None


@dataclass(slots=True)
class Paused(Finished):
    """The model waits to be called again with what it said; a protocol without pauses shows it as stopped."""


@dataclass(slots=True)
class WindowFull(Finished):
    """The context window was full before the maximum was reached; elsewhere that is the same."""


@dataclass(slots=True)
class Timing:
    """Seconds: before the upstream was asked, until its first output, and from there to its end.

    Told by the gateway as the last event, to callers whose request is `timed`."""

    queue: float
    prompt: float
    completion: float

    @property
    def total(self) -> float:
        return self.prompt + self.completion


@dataclass(slots=True)
class Failed:
    error: TokenworksError


Event = (
    Started
    | TextDelta
    | ReasoningDelta
    | ToolCallDelta
    | Vector
    | Ranked
    | UsageReport
    | Working
    | Finished
    | Timing
    | Failed
)
