"""What a protocol can do. Pure: bytes and neutral forms in, the other out; no socket, no clock.

Two ways lead from an upstream's bytes to the caller's. A `Passthrough` forwards the bytes of a protocol that both
speak and only looks at them; otherwise `Translation` (translation.py) goes through neutral events. Both tell the
same `Observation` what went by, and that is all the meter ever reads.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from tokenworks.core.allowance import Allowance
from tokenworks.core.errors import TokenworksError
from tokenworks.core.events import (
    Event,
    Failed,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    Timing,
    ToolCallDelta,
    UsageReport,
    Working,
)
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage

_ABLE: dict[tuple[type, type], bool] = {}


class Ability(type(Protocol)):  # type: ignore[misc]
    """Of protocols that `isinstance` may ask for: what a class can do never changes, so it is found out once for each
    class. Python 3.11's own way takes some 5 us for each question, and a request asks eight of them."""

    def __instancecheck__(cls, instance: object) -> bool:
        asked = (cls, type(instance))
        able = _ABLE.get(asked)
        if able is None:
            able = _ABLE[asked] = super().__instancecheck__(instance)
        return able


@dataclass(slots=True)
class Observation:
    """What went by so far. `deltas` counts pieces of output: about one token each on engines of ours. `size` is that of
    their text in characters; `prompt` what the beginning of a stream told of its input; `gpu_ms` how long an engine of
    ours has computed so far, where it tells.

    `clock` tells how long it took so far: protocols have no clock of their own."""

    usage: Usage | None = None
    deltas: int = 0
    size: int = 0
    prompt: Usage | None = None
    gpu_ms: int = 0
    finish_reasons: dict[int, str] = field(default_factory=dict)
    error: TokenworksError | None = None
    response_model: str = ""
    service_tier: str | None = None
    """At which the upstream says that it answered."""
    clock: Callable[[], Timing] | None = None
    estimate: Callable[[], Usage] | None = None
    """Our own count, for callers of an upstream that reports none."""

    def answered_at(self, tier: str | None) -> None:
        if tier is not None and tier != "auto":  # not yet the one it will be
            self.service_tier = tier

    def see(self, event: Event) -> None:
        if isinstance(event, TextDelta | ReasoningDelta | ToolCallDelta):
            self.deltas += 1
            self.size += len(event.arguments if isinstance(event, ToolCallDelta) else event.text)
        elif isinstance(event, Started):
            self.answered_at(event.service_tier)
            self.prompt = event.prompt
        elif isinstance(event, UsageReport):
            self.usage = event.usage
        elif isinstance(event, Working):
            self.gpu_ms = event.gpu_ms
        elif isinstance(event, Finished):
            self.finish_reasons[event.index] = event.reason
        elif isinstance(event, Failed):
            self.error = event.error


class Relay(Protocol):
    """Upstream bytes of one attempt in, the caller's bytes out."""

    observation: Observation

    def feed(self, chunk: bytes) -> bytes:
        """The caller's bytes for this chunk, often empty. Raises the upstream's own mid-stream error."""
        ...

    def close(self) -> bytes:
        """The last bytes, after the upstream ended. Raises UpstreamBroken when it ended before its finish."""
        ...

    def whole(self, body: bytes) -> bytes:
        """The caller's body for an upstream's complete (not streamed) answer."""
        ...


class StreamReader(Protocol):
    """An upstream's stream -> events, fed in any pieces."""

    def feed(self, chunk: bytes) -> list[Event]: ...

    def close(self) -> list[Event]:
        """The events still held back at the end of the stream."""
        ...


class StreamWriter(Protocol):
    """Events -> the caller's stream. `close` gives the terminator."""

    def feed(self, event: Event) -> bytes: ...

    def close(self) -> bytes: ...


@runtime_checkable
class Failing(Protocol, metaclass=Ability):
    """A writer or relay whose stream must say in its own terms that it broke: it repeats what it already said.

    Where one is not, the codec's `encode_stream_error` says it."""

    def fail(self, error: TokenworksError) -> bytes: ...


@runtime_checkable
class Ending(Protocol, metaclass=Ability):
    """A relay whose answer can be ended before the upstream ends it; see translation.Translation.end."""

    def end(self, usage: Usage, reason: str) -> bytes: ...


@runtime_checkable
class Concluding(Protocol):
    """A relay whose answer is whole although its upstream was lost before the last bytes: every finish was told."""

    def conclude(self, usage: Usage, note: str) -> bytes:
        """The caller's last bytes. `usage` is told where the upstream did not; `note` says what happened, as a comment
        in a protocol that has them."""
        ...


def bearer(credential: str) -> dict[str, str]:
    """The headers by which most protocols tell a key."""
    return {"authorization": f"Bearer {credential}"}


@runtime_checkable
class Continuing(Protocol, metaclass=Ability):
    """A writer whose own ids and numbers a stream that was passed through does not have."""

    def go_on(self, raw: bytes) -> bool:
        """Before anything else: with what the caller got. False when that cannot be gone on with."""
        ...


@runtime_checkable
class Renaming(Protocol, metaclass=Ability):
    """A relay that passes an answer on under an id of ours, which callers may ask for later."""

    def rename(self, response_id: str) -> None: ...


class Codec(Protocol):
    """One wire protocol. Methods of a direction that a protocol does not have raise NotImplementedError."""

    name: str
    path: str
    """Path under an upstream's base URL."""
    tasks: tuple[type, ...]
    """The tasks of core.request that it can carry."""
    stream_content_type: bytes
    stream_comment: bytes
    """What keeps a waiting client alive and means nothing to it."""

    # To serve it.
    def response_id(self, request_id: str) -> str:
        """An id in this protocol's style."""
        ...

    def decode_request(self, body: bytes) -> Request:
        """Raises InvalidRequest naming the field."""
        ...

    def stream_writer(self, request: Request, response_id: str, created: int) -> StreamWriter: ...

    def encode_response(self, request: Request, events: list[Event], response_id: str, created: int) -> bytes:
        """The fold of a complete answer's events."""
        ...

    def encode_error(self, error: TokenworksError) -> bytes:
        """The body of an error answer."""
        ...

    def encode_stream_error(self, error: TokenworksError) -> bytes:
        """What a stream that already began says before it closes."""
        ...

    # To call it.
    def headers(self, credential: str) -> dict[str, str]:
        """How an upstream is told our key."""
        ...

    def encode_request(self, request: Request, model: str, *, stream: bool) -> bytes: ...

    def rewrite_request(self, request: Request, model: str) -> bytes:
        """The caller's own body with the model's name replaced, and usage asked for in a stream."""
        ...

    def passthrough(self, request: Request, observation: Observation) -> Relay: ...

    def read_response(self, body: bytes) -> list[Event]:
        """Raises ValueError when the body is not a complete answer."""
        ...

    def stream_reader(self, quirks: Collection[str] = ()) -> StreamReader:
        """`quirks` are the endpoint's deviations, by the names of snapshot.records.UpstreamRecord."""
        ...

    def read_error(self, status: int, body: bytes, *, provider: str, retry_after: float | None) -> TokenworksError:
        """An upstream's error answer, with its cause, provider and status kept."""
        ...


@runtime_checkable
class Padded(Protocol, metaclass=Ability):
    """A codec whose clients skip white space before a whole answer; `padding` keeps one alive that waits for it."""

    padding: bytes


@runtime_checkable
class Prefilled(Protocol, metaclass=Ability):
    """A codec whose upstreams go on with a last message of the assistant's, as its protocol says."""

    prefilled: bool


@runtime_checkable
class Repeatable(Protocol, metaclass=Ability):
    """A codec whose answers may be given again under another id: nothing else knows them by the one they had."""

    repeatable: bool


@runtime_checkable
class OwnHeaders(Protocol, metaclass=Ability):
    """A codec whose whole answers carry headers of their own."""

    def answer_headers(self, observation: Observation) -> list[tuple[bytes, bytes]]: ...


@runtime_checkable
class TellsAllowances(Protocol, metaclass=Ability):
    """A codec whose family tells in headers what is left of the caller's limits."""

    def allowance_headers(self, allowances: Sequence[Allowance]) -> list[tuple[bytes, bytes]]: ...


@runtime_checkable
class Addressed(Protocol, metaclass=Ability):
    """A codec whose path tells more than which protocol it is: a model, a task, a stream."""

    def path_of(self, request: Request, model: str, *, stream: bool) -> str: ...


@runtime_checkable
class Framed(Protocol, metaclass=Ability):
    """A codec whose streams are binary frames and not lines; none is shorter than so many bytes."""

    shortest_frame: int


@runtime_checkable
class TwoCalls(Protocol, metaclass=Ability):
    """A codec whose answer to a request for a stream tells where the stream is to be got."""

    def stream_url(self, body: bytes) -> str:
        """ValueError when it does not."""
        ...


@runtime_checkable
class ReadsHeaders(Protocol, metaclass=Ability):
    """A codec whose requests also speak in headers, named in lower case."""

    def read_headers(self, request: Request, headers: Mapping[str, str]) -> None:
        """Notes in the request what they say. InvalidRequest for what they forbid."""
        ...

    def upstream_headers(self, request: Request) -> dict[str, str]:
        """What an upstream is told beside the body and our key."""
        ...


@runtime_checkable
class Watching(Protocol, metaclass=Ability):
    """A codec in front of `inner` that looks at answers before the caller gets them, on behalf of `watchers`."""

    inner: Codec
    watchers: str


@runtime_checkable
class OwnStatuses(Protocol, metaclass=Ability):
    """A codec whose protocol tells errors by other status codes than core.errors."""

    def error_status(self, error: TokenworksError) -> int: ...
