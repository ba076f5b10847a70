"""A stream that was lost in its middle, and how another attempt goes on with it. See docs/failover.md."""

import re
from dataclasses import dataclass, replace

from tokenworks.core.events import Started
from tokenworks.core.messages import Message, Role, Text
from tokenworks.core.request import Conversation, Prompts, Request
from tokenworks.gateway.failover.trying import Try
from tokenworks.gateway.guardrails.answer import Watched
from tokenworks.gateway.metering.attempt import continued
from tokenworks.gateway.upstreams import quirks
from tokenworks.gateway.upstreams.prepare import Prepared, can_carry, spoken_with
from tokenworks.protocols.base import Codec, Continuing, Prefilled, Renaming, StreamWriter
from tokenworks.protocols.said import Matching, Resuming, Said
from tokenworks.protocols.translation import Translation
from tokenworks.snapshot.records import UpstreamRecord

_CREATED = re.compile(rb'"created"\s*:\s*(\d+)')


@dataclass(slots=True)
class Story:
    """`told` tokens of `said` are the caller's; `writer` goes on with their stream."""

    said: Said
    writer: StreamWriter
    told: int
    watched: Watched | None = None
    """What looks at the caller's stream, where something does."""

    def goes_on(self, one: Try) -> bool:
        """After the loss of another attempt, which went on with it too. False when it cannot go on again."""
        relay = one.prepared.relay
        if not isinstance(relay, Translation) or relay.told is None:
            return False
        self.said.add(relay.told)
        self.told = one.attempt.output
        return True


def begin(one: Try, caller: Codec, request: Request, identity: tuple[str, int]) -> Story | None:
    """What the caller was told by an attempt that was lost. None when that cannot be gone on with."""
    relay = one.prepared.relay
    said = Said()
    if isinstance(relay, Translation):
        if relay.told is None:
            return None
        said.add(relay.told)
        return Story(said, relay.writer, one.attempt.output, one.watched)
    if one.passed is None:
        return None
    raw = b"".join(one.passed)
    created = _CREATED.search(raw)
    events = caller.stream_reader().feed(raw)
    named = (event.id for event in events if isinstance(event, Started))
    own = "" if isinstance(relay, Renaming) else next(named, "")
    writer = caller.stream_writer(request, own or identity[0], int(created[1]) if created else identity[1])
    if not isinstance(writer, Continuing):
        for event in events:
            writer.feed(event)
    elif not writer.go_on(raw):
        return None
    said.add(events)
    return Story(said, writer, one.attempt.output)


def resumed(story: Story, request: Request, upstream: UpstreamRecord) -> Request | None:
    """The request that makes this upstream go on with what was said; None when it cannot be told to."""
    text = story.said.only_text()
    if text is None or request.n > 1 or request.logprobs or request.response_format is not None:
        return None
    left = request.max_output_tokens
    most = None if left is None else left - story.told
    if most is not None and most < 1:
        return None
    task = request.task
    if not can_carry(request, upstream):
        return None
    if isinstance(task, Prompts):
        if len(task.prompts) > 1 or not isinstance(task.prompts[0], str) or task.suffix or task.echo:
            return None
        return replace(request, task=replace(task, prompts=[task.prompts[0] + text]), max_output_tokens=most)
    if not isinstance(task, Conversation) or task.messages[-1].role is Role.ASSISTANT or not text.strip():
        return None
    if not (quirks.CONTINUES & set(upstream.quirks) or isinstance(spoken_with(request, upstream), Prefilled)):
        return None
    if "no_prefill" in upstream.quirks or (task.tool_choice is not None and task.tool_choice.mode == "required"):
        return None
    said = Message(Role.ASSISTANT, [Text(text.rstrip())])
    return replace(request, task=replace(task, messages=[*task.messages, said]), max_output_tokens=most)


def join(story: Story, prepared: Prepared, upstream: UpstreamRecord, *, resume: bool) -> Prepared:
    """The attempt as one that goes on with the caller's stream."""
    relay = prepared.relay
    assert isinstance(relay, Translation)  # noqa: S101 - it was prepared so
    if not resume:
        relay.go_on(story.writer, Matching(story.said))
        return prepared
    told, text = story.told, story.said.only_text() or ""
    odd = frozenset(upstream.quirks)
    if "repeats_prefix" in odd:
        relay.go_on(story.writer, Matching(story.said, lambda usage: continued(usage, told)))
    else:
        chat = isinstance(relay.request.task, Conversation)
        space = text[len(text.rstrip()) :] if chat else ""
        relay.go_on(story.writer, Resuming(space, lambda usage: continued(usage, told)))
    return replace(prepared, body=quirks.continuing(prepared.body, odd))
