"""An answer on its way through hooks: between the events that the upstream is understood to say and the writer of the
caller's protocol.

A relay writes into `codec`, which only collects; `written` and `finished` give what has passed the hooks, as the
caller's bytes. The upstream's side of the relay knows nothing of it: what was said is compared, resumed and metered as
the upstream said it, and hooks go on where they were when another upstream goes on with the answer.
"""

from collections import Counter
from dataclasses import replace
from typing import Any, cast

from tokenworks.core.errors import TokenworksError
from tokenworks.core.events import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
    ToolCallDelta,
)
from tokenworks.core.request import Prompts, Request
from tokenworks.gateway.guardrails.base import Channel, summary
from tokenworks.gateway.guardrails.guardrails import Watch
from tokenworks.protocols.base import Codec, Failing, Observation, StreamWriter
from tokenworks.protocols.said import channel_of, text_of

Delta = TextDelta | ReasoningDelta | ToolCallDelta


class Watched:
    """One answer. `over`: a hook has ended it, and nothing more of the upstream is needed."""

    def __init__(self, watch: Watch, codec: Codec, request: Request, observation: Observation) -> None:
        self.collecting = Collecting(codec, watch.names)
        self.observation = observation
        self.ended = ""
        """Why it was ended before its end."""
        self._watch = watch
        self._stages = watch.stages()
        self._formatted = request.response_format is not None
        single = not isinstance(request.task, Prompts) or len(request.task.prompts) == 1
        self._single = single and request.n == 1
        self._open: dict[int, Channel] = {}
        """Of each choice, the text that grows."""
        self._blocked: set[int] = set()
        self._ended: set[int] = set()
        self._before = Counter(watch.session.fired)

    @property
    def codec(self) -> Codec:
        return cast(Codec, self.collecting)

    @property
    def over(self) -> bool:
        return self._single and bool(self._blocked)

    @property
    def waiting(self) -> bool:
        """Something has come since."""
        return self.collecting.waiting

    @property
    def fired(self) -> Counter[str]:
        """While it passed, for the journal."""
        return summary(self._watch.session.fired - self._before)

    async def written(self) -> bytes:
        """The caller's bytes for what has come since."""
        out = [self.collecting.writer.feed(event) for event in await self._passed(self.collecting.taken())]
        return b"".join(out)

    async def finished(self) -> bytes:
        """The last bytes of a stream, or all of an answer that is not one."""
        if (whole := self.collecting.answer) is not None:
            request, events, response_id, created = whole
            return self.collecting.inner.encode_response(request, await self._passed(events), response_id, created)
        return await self.written() + self.collecting.writer.close()

    async def _passed(self, events: list[Event]) -> list[Event]:
        passed: list[Event] = []
        for event in events:
            if isinstance(event, Finished):
                passed += await self._end(event)
            elif isinstance(event, Delta):
                passed += await self._next(event)
            else:
                passed.append(event)
        return passed

    async def _next(self, event: Delta) -> list[Event]:
        index = event.index
        if index in self._blocked:
            return []
        channel, passed = self._channel(event), list[Event]()
        before = self._open.get(index)
        if before is not None and before != channel:
            passed = await self._closed(before)
            if index in self._blocked:
                return passed
        self._open[index] = channel
        text = text_of(event)
        proven = isinstance(event, ReasoningDelta) and bool(event.signature or event.encrypted)
        new = await self._through(channel, text, last=proven)  # nothing of a text comes after its proof
        named = isinstance(event, ToolCallDelta) and bool(event.id or event.name)
        if new or not text or proven or named:
            passed.append(_with(event, new))
        return passed + self._ending(index)

    async def _end(self, event: Finished) -> list[Event]:
        passed: list[Event] = []
        if event.index not in self._blocked and (channel := self._open.get(event.index)) is not None:
            passed = await self._closed(channel)
        if event.index in self._blocked:
            self.observation.finish_reasons[event.index] = FinishReason.CONTENT_FILTER
            return passed
        return [*passed, event]

    async def _closed(self, channel: Channel) -> list[Event]:
        """What was held back of a text that is over."""
        self._open.pop(channel.choice, None)
        rest = await self._through(channel, "", last=True)
        return [*([_delta(channel, rest)] if rest else []), *self._ending(channel.choice)]

    async def _through(self, channel: Channel, text: str, *, last: bool) -> str:
        for place, stage in enumerate(self._stages):
            text = await stage.feed(channel, text) if text else ""
            if last and not stage.stopped:
                text += await stage.close(channel)
            if stage.stopped:
                stage.stopped, last = False, True
                if channel.choice not in self._blocked:
                    self._blocked.add(channel.choice)
                    self.ended = f"guardrail {self._watch.hooks[place].record.name}"
        return text

    def _ending(self, index: int) -> list[Event]:
        """The choice ends here, if a hook has just said so."""
        if index not in self._blocked or index in self._ended:
            return []
        self._ended.add(index)
        self.observation.finish_reasons[index] = FinishReason.CONTENT_FILTER
        return [Finished(FinishReason.CONTENT_FILTER, index)]

    def _channel(self, event: Delta) -> Channel:
        found = channel_of(event)
        assert found is not None  # noqa: S101 -- it is of a delta
        return Channel(*found, json=found[0] == "call" or (found[0] == "text" and self._formatted))


class Collecting:
    """A codec, for a relay: collects what it would write."""

    def __init__(self, inner: Codec, watchers: str) -> None:
        self.inner = inner
        self.watchers = watchers
        self.answer: tuple[Request, list[Event], str, int] | None = None
        self._writer: CollectingWriter | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def writer(self) -> StreamWriter:
        assert self._writer is not None  # noqa: S101 -- a relay has asked for it
        return self._writer.inner

    @property
    def waiting(self) -> bool:
        return self._writer is not None and self._writer.waiting

    def taken(self) -> list[Event]:
        return [] if self._writer is None else self._writer.taken()

    def stream_writer(self, request: Request, response_id: str, created: int) -> StreamWriter:
        inner = self.inner.stream_writer(request, response_id, created)
        self._writer = CollectingWriter(inner, self.inner)
        return self._writer

    def encode_response(self, request: Request, events: list[Event], response_id: str, created: int) -> bytes:
        self.answer = (request, events, response_id, created)
        return b""


class CollectingWriter:
    def __init__(self, inner: StreamWriter, codec: Codec) -> None:
        self.inner = inner
        self._codec = codec
        self._events: list[Event] = []

    @property
    def waiting(self) -> bool:
        return bool(self._events)

    def taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def feed(self, event: Event) -> bytes:
        self._events.append(event)
        return b""

    def close(self) -> bytes:
        return b""

    def fail(self, error: TokenworksError) -> bytes:
        """What is held back is not told: it may be half of something."""
        inner = self.inner
        return inner.fail(error) if isinstance(inner, Failing) else self._codec.encode_stream_error(error)


def _with(event: Delta, text: str) -> Delta:
    """Probabilities of tokens would tell what was taken out."""
    if isinstance(event, ToolCallDelta):
        return replace(event, arguments=text)
    return replace(event, text=text, logprobs=None) if isinstance(event, TextDelta) else replace(event, text=text)


def _delta(channel: Channel, text: str) -> Event:
    match channel.kind:
        case "call":
            return ToolCallDelta(channel.call, text, index=channel.choice)
        case "reasoning":
            return ReasoningDelta(text, channel.choice)
        case "summary":
            return SummaryDelta(text, channel.choice)
        case "refusal":
            return RefusalDelta(text, channel.choice)
    return TextDelta(text, channel.choice)
