"""From one protocol to another: upstream bytes -> neutral events -> the caller's bytes."""

from collections.abc import Callable, Collection
from functools import cached_property

from tokenworks.core.errors import Fault, TokenworksError, UpstreamBroken
from tokenworks.core.events import Event, Finished, FinishReason, UsageReport, Vector, Working
from tokenworks.core.request import Embeddings, Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.base import Codec, Failing, Observation, StreamReader, StreamWriter


class Translation:
    """A relay between any two codecs. `identity` is the answer's id and its creation time in Unix seconds.

    `transform` changes the upstream's events before anybody sees them.

    `told` collects the events that the caller was told of, where somebody set it to a list. `go_on` makes it go on
    with a stream that another attempt began.

    `collect` collects a stream for a caller who wants one whole answer; its body is then `folded()`.
    """

    def __init__(
        self,
        caller: Codec,
        upstream: Codec,
        request: Request,
        observation: Observation,
        identity: tuple[str, int],
        *,
        quirks: Collection[str] = (),
        transform: Callable[[list[Event]], list[Event]] | None = None,
    ) -> None:
        self.observation = observation
        self._caller = caller
        self._request = request
        self._identity = identity
        self._upstream = upstream
        self._quirks = quirks
        self._transform = transform
        self._events: list[Event] = []
        self._filter: Callable[[list[Event]], list[Event]] | None = None
        self.told: list[Event] | None = None

    @property
    def request(self) -> Request:
        return self._request

    @cached_property
    def _reader(self) -> StreamReader:
        return self._upstream.stream_reader(self._quirks)

    @cached_property
    def writer(self) -> StreamWriter:
        return self._caller.stream_writer(self._request, *self._identity)

    def feed(self, chunk: bytes) -> bytes:
        return self._written(self._seen(self._reader.feed(chunk)))

    def close(self) -> bytes:
        tail = self._written(self._seen(self._reader.close()) + self._last())
        self._require_finish()
        return tail + self.writer.close()

    def go_on(self, writer: StreamWriter, admit: Callable[[list[Event]], list[Event]]) -> None:
        """Write what `admit` lets pass with the writer of a stream that has begun."""
        self.writer = writer
        self._filter = admit

    def _written(self, events: list[Event]) -> bytes:
        if self._filter is not None:
            events = self._filter(events)
        if self.told is not None:
            self.told += events
        return b"".join([self.writer.feed(event) for event in events])

    def fail(self, error: TokenworksError) -> bytes:
        """What a stream that already began says before it closes."""
        if isinstance(self.writer, Failing):
            return self.writer.fail(error)
        return self._caller.encode_stream_error(error)

    def end(self, usage: Usage, reason: str) -> bytes:
        """The last bytes of an answer that is ended here, as if the model had come to its maximum; all the bytes of one
        that was collected. `reason` is told as a comment, where the protocol has them."""
        done = self.observation.finish_reasons
        choices = [index for index in range(self._request.n) if index not in done]
        ending: list[Event] = [*[Finished(FinishReason.LENGTH, index) for index in choices], UsageReport(usage)]
        for event in ending[:-1]:
            self.observation.see(event)
        if not self._request.stream:
            self._events += ending
            return self._caller.encode_response(self._request, self._events + self._timing(), *self._identity)
        comment = b": " + reason.encode() + b"\n\n" if self._caller.stream_comment.startswith(b":") else b""
        tail = [self.writer.feed(event) for event in ending + self._timing()]
        return comment + b"".join(tail) + self.writer.close()

    def conclude(self, usage: Usage, note: str) -> bytes:
        return self.end(usage, note)

    def whole(self, body: bytes) -> bytes:
        try:
            events = self._upstream.read_response(body)
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's answer is not valid: {error}") from error
        events = self._seen(events)
        require_vectors(self._request, sum(isinstance(event, Vector) for event in events))
        return self._encode(events)

    def collect(self, chunk: bytes) -> None:
        self._events += self._seen(self._reader.feed(chunk))

    def folded(self) -> bytes:
        self._events += self._seen(self._reader.close())
        self._require_finish()
        return self._encode(self._events)

    def _encode(self, events: list[Event]) -> bytes:
        return self._caller.encode_response(self._request, events + self._last(), *self._identity)

    def _last(self) -> list[Event]:
        """What the upstream itself does not tell: our own count where it reported none, and the times."""
        seen = self.observation
        counted: list[Event] = []
        if seen.usage is None and seen.estimate is not None and seen.finish_reasons:
            counted = [UsageReport(seen.estimate())]
        return counted + self._timing()

    def _timing(self) -> list[Event]:
        clock = self.observation.clock
        return [clock()] if self._request.timed and clock is not None else []

    def _seen(self, events: list[Event]) -> list[Event]:
        if self._transform is not None:
            events = self._transform(events)
        if any(isinstance(event, UsageReport) and not event.usage.is_plausible for event in events):
            events = [event for event in events if not isinstance(event, UsageReport)]
        for event in events:
            self.observation.see(event)
        if self.observation.error is not None:
            raise self.observation.error
        return [event for event in events if not isinstance(event, Working)] if self.observation.gpu_ms else events

    def _require_finish(self) -> None:
        require_finish(self.observation)


def require_finish(observation: Observation) -> None:
    """A stream that ends without a finish was cut: never pass it off as complete."""
    if not observation.finish_reasons:
        raise UpstreamBroken("The upstream's stream ended before it was finished.", fault=Fault.CUT)


def require_vectors(request: Request, count: int) -> None:
    """An answer with fewer vectors than inputs is not complete."""
    if isinstance(request.task, Embeddings) and count != len(request.task.inputs):
        raise UpstreamBroken(f"The upstream answered {count} vectors for {len(request.task.inputs)} inputs.")
