"""An answer in two pieces: what a caller was told before an upstream was lost, and how another one goes on from there.

`Said` remembers. `Resuming` is for an upstream that was told what was said and goes on with the next word; `Matching`
for one that begins anew: what it says is compared with what was said, and only what comes after it is passed on. Both
are filters between the events of the new attempt and the writer of the caller's stream, which goes on as it was: its
ids, indices and numbers stay.
"""

from collections.abc import Callable, Iterable

from tokenworks.core.errors import Fault, UpstreamBroken
from tokenworks.core.events import (
    Event,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    SummaryDelta,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from tokenworks.core.usage import Usage

Channel = tuple[str, int, int]
"""Kind, choice, number of the call: each is one text that only grows."""
THOUGHTS = ("reasoning", "summary")


class Diverged(UpstreamBroken):
    """Another upstream does not say the same: its answer cannot be joined to what was said."""

    code = "answer_diverged"
    fault = Fault.UNSUITABLE


class Said:
    """`texts` by channel in the order in which they began; `names` of calls; choices that are `finished`."""

    def __init__(self) -> None:
        self.texts: dict[Channel, str] = {}
        self.names: dict[Channel, str | None] = {}
        self.finished: set[int] = set()

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            channel = channel_of(event)
            if channel is not None:
                self.texts[channel] = self.texts.get(channel, "") + text_of(event)
                if isinstance(event, ToolCallDelta) and event.name:
                    self.names[channel] = event.name
            elif isinstance(event, Finished):
                self.finished.add(event.index)

    def only_text(self) -> str | None:
        """What was said if that is text of one choice and nothing else: what an upstream can be told to go on from."""
        texts = {channel: text for channel, text in self.texts.items() if text}
        if list(texts) != [("text", 0, 0)] or self.names or self.finished:
            return None
        return texts["text", 0, 0]


class Resuming:
    """`space` is white space at the end of what was said that the upstream was not told, and may say again."""

    def __init__(self, space: str, usage: Callable[[Usage], Usage]) -> None:
        self._space = space
        self._usage = usage

    def __call__(self, events: list[Event]) -> list[Event]:
        passed: list[Event] = []
        for event in events:
            if isinstance(event, Started):
                continue
            if isinstance(event, UsageReport):
                passed.append(UsageReport(self._usage(event.usage)))
            elif isinstance(event, TextDelta) and self._space and event.text:
                text, self._space = _without_repeated(event.text, self._space)
                if text:
                    passed.append(TextDelta(text, event.index, event.logprobs))
            else:
                passed.append(event)
        return passed


class Matching:
    """`usage` makes the caller's usage of what the upstream reports."""

    def __init__(self, said: Said, usage: Callable[[Usage], Usage] = lambda usage: usage) -> None:
        self._usage = usage
        self._said = dict(said.texts)
        self._names = dict(said.names)
        self._finished = set(said.finished)
        self._at: dict[Channel, int] = {}
        thoughtful = {index for kind, index, _ in self._said if kind not in THOUGHTS}
        self._ignored = {(kind, index) for kind in THOUGHTS for index in thoughtful}
        """Thoughts of a choice that has begun to answer: they are over, whatever another upstream thinks."""

    def __call__(self, events: list[Event]) -> list[Event]:
        """Raises Diverged."""
        return [passed for event in events if (passed := self._match(event)) is not None]

    def _match(self, event: Event) -> Event | None:
        if isinstance(event, Started):
            return None
        if isinstance(event, Finished):
            return self._finish(event)
        if isinstance(event, UsageReport):
            return UsageReport(self._usage(event.usage))
        channel = channel_of(event)
        if channel is None or channel[:2] in self._ignored:
            return event if channel is None else None
        rest = self._rest(channel, event)
        if channel in self._said:
            if isinstance(event, ToolCallDelta):
                event.id = event.name = None
            if not rest:
                return event if self._proof(event) and self._is_matched(channel[1]) else None
        if not self._is_matched(channel[1]):
            raise Diverged("Another upstream's answer differs from what was said already.")
        if isinstance(event, ToolCallDelta):
            event.arguments = rest
        elif isinstance(event, TextDelta | ReasoningDelta):
            event.text = rest
        return event

    def _rest(self, channel: Channel, event: Event) -> str:
        """What of the event's text comes after what was said."""
        said, at, text = self._said.get(channel, ""), self._at.get(channel, 0), text_of(event)
        if isinstance(event, ToolCallDelta) and event.name and self._names.get(channel, event.name) != event.name:
            raise Diverged("Another upstream calls another tool.")
        known = said[at : at + len(text)]
        if not text.startswith(known):
            raise Diverged("Another upstream's answer differs from what was said already.")
        self._at[channel] = at + len(known)
        return text[len(known) :]

    def _is_matched(self, index: int) -> bool:
        return index not in self._finished and all(
            self._at.get(channel, 0) == len(text)
            for channel, text in self._said.items()
            if channel[1] == index and channel[:2] not in self._ignored
        )

    def _finish(self, event: Finished) -> Finished | None:
        if event.index in self._finished:
            return None
        if not self._is_matched(event.index):
            raise Diverged("Another upstream's answer is shorter than what was said already.")
        return event

    def _proof(self, event: Event) -> bool:
        return isinstance(event, ReasoningDelta) and bool(event.signature or event.encrypted)


def channel_of(event: Event) -> Channel | None:
    match event:
        case RefusalDelta():
            return "refusal", event.index, 0
        case TextDelta():
            return "text", event.index, 0
        case SummaryDelta():
            return "summary", event.index, 0
        case ReasoningDelta():
            return "reasoning", event.index, 0
        case ToolCallDelta():
            return "call", event.index, event.call
        case _:
            return None


def text_of(event: Event) -> str:
    if isinstance(event, ToolCallDelta):
        return event.arguments
    return event.text if isinstance(event, TextDelta | ReasoningDelta) else ""


def _without_repeated(text: str, space: str) -> tuple[str, str]:
    """(the text without the white space that was said already, what of that is still to come)"""
    for at, char in enumerate(text):
        if at >= len(space) or char != space[at]:
            return text[at:], ""
    return "", space[len(text) :]
