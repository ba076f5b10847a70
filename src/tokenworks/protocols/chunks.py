"""Streams of JSON chunks in `data: ` lines, ended by `[DONE]`: what the OpenAI-like protocols share."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import replace

from tokenworks.core.errors import Fault, UpstreamBroken
from tokenworks.core.events import Event, Started, UsageReport
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.base import Observation
from tokenworks.protocols.sse import Splitter, data_of
from tokenworks.protocols.translation import require_finish

DONE = b"data: [DONE]\n\n"


class ChunkReader(ABC):
    """An upstream's chunks -> events. Garbled chunks raise UpstreamBroken."""

    def __init__(self, quirks: Collection[str] = ()) -> None:
        self._splitter = Splitter()
        self._started = False
        self._sums = [name for name in ("usage_per_choice", "usage_per_prompt") if name in quirks]
        self._usage: Usage | None = None

    @abstractmethod
    def _read(self, data: bytes) -> list[Event]:
        """The events of one chunk. ValueError when it is not one."""

    def feed(self, chunk: bytes) -> list[Event]:
        try:
            return self._events(self._splitter.feed(chunk))
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's stream is garbled: {error}") from error

    def close(self) -> list[Event]:
        try:
            return self._events(self._splitter.close())
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's stream was cut: {error}", fault=Fault.CUT) from error

    def _events(self, blocks: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for block in blocks:
            if (data := payload(block)) is not None:
                events += self._read(data)
        return events

    def _start(self, response_id: str | None, model: str | None, tier: str | None = None) -> list[Event]:
        if self._started:
            return []
        self._started = True
        return [Started(response_id or "", model or "", tier)]

    def _report(self, usage: Usage) -> UsageReport:
        if self._sums and self._usage is not None:
            usage = _sum(self._usage, usage, same_prompt="usage_per_prompt" not in self._sums)
        self._usage = usage
        return UsageReport(usage)


class ChunkRelay(ABC):
    """Forwards chunks as they came and watches them.

    Held back: a usage chunk that the caller did not ask for, and `[DONE]`, which is ours to send once the attempt is
    settled. A block in any other dress than one `data: ` line is put into it, and a chunk gets what clients need of it:
    several fail on others.
    """

    terminator = DONE

    def __init__(self, request: Request, observation: Observation) -> None:
        self.observation = observation
        self._include_usage = request.include_usage
        self._splitter = Splitter()
        self._chunk = b""
        """The last one that the caller got."""

    @abstractmethod
    def _see(self, data: bytes) -> bytes | None:
        """Watch one chunk; what the caller gets of it. ValueError when it is not one."""

    @abstractmethod
    def _see_whole(self, body: bytes) -> None:
        """Watch a complete answer. ValueError when it is not one."""

    def feed(self, chunk: bytes) -> bytes:
        try:
            return b"".join([self._forward(block) for block in self._splitter.feed(chunk)])
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's stream is garbled: {error}") from error

    def close(self) -> bytes:
        try:
            tail = b"".join([self._forward(block) for block in self._splitter.close()])
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's stream was cut: {error}", fault=Fault.CUT) from error
        require_finish(self.observation)
        seen = self.observation
        if self._include_usage and seen.usage is None and seen.estimate is not None and self._chunk:
            tail += self._report(seen.estimate())
        return tail + self.terminator

    def conclude(self, usage: Usage, note: str) -> bytes:
        untold = self._include_usage and self.observation.usage is None
        return b": " + note.encode() + b"\n\n" + (self._report(usage) if untold else b"") + self.terminator

    def _report(self, usage: Usage) -> bytes:
        """The chunk that tells usage, where the protocol has one of its own."""
        return b""

    def whole(self, body: bytes) -> bytes:
        try:
            self._see_whole(body)
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's answer is not valid: {error}") from error
        require_finish(self.observation)
        return body

    def _forward(self, block: bytes) -> bytes:
        data = payload(block)
        passed = None if data is None else self._see(data)
        if passed is None:
            return b""
        self._chunk = passed
        if passed is data and len(passed) + 6 == len(block):
            return block + b"\n\n"
        return b"data: " + passed.replace(b"\n", b" ") + b"\n\n"


def payload(block: bytes) -> bytes | None:
    """The chunk in a block; None for comments, pings, the `null` of some hosts and the terminator."""
    data = data_of(block)
    return None if data is None or data.strip() in (b"", b"[DONE]", b"null") else data


def _sum(earlier: Usage, report: Usage, *, same_prompt: bool) -> Usage:
    """Hosts that report once per choice split the output; choices of one prompt repeat its input."""
    if same_prompt:
        report = replace(report, input=0, cached_input=0, cache_write=0, cache_write_1h=0, input_audio=0, input_image=0)
    return earlier + report
