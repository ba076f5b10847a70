"""What every kind of hook is, and what the hooks of one request share."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tokenworks.core.caller import Caller
from tokenworks.core.errors import ContentRefused, Unavailable
from tokenworks.redaction.placeholders import Placeholders
from tokenworks.snapshot.records import GuardrailRecord
from tokenworks.telemetry.metrics import Metrics

BEFORE, AFTER = "before", "after"
LONGEST_REASON = 300


class Channel(NamedTuple):
    """One text of an answer that only grows: kind (protocols.said), choice, number of the call. `json`: it is JSON."""

    kind: str
    choice: int
    call: int
    json: bool


class Session:
    """Of one request. `fired`: how often, by (guardrail, action, entity); never what was found."""

    def __init__(self, request_id: str, caller: Caller, model: str, body: bytes, metrics: Metrics) -> None:
        self.request_id = request_id
        self.caller = caller
        self.model = model
        self.placeholders = Placeholders(body)
        self.fired: Counter[tuple[str, str, str]] = Counter()
        self.metrics = metrics
        self.asked = 0
        """Questions to hooks elsewhere, which each need an id."""

    def fire(self, guardrail: GuardrailRecord, phase: str, action: str, entity: str, count: int = 1) -> None:
        self.fired[guardrail.name, action, entity] += count
        self.metrics.guardrails.labels(guardrail.name, phase, action, entity).inc(count)


def summary(fired: Counter[tuple[str, str, str]]) -> Counter[str]:
    """As the journal has it: `guardrail:action:entity`."""
    return Counter({":".join(part for part in parts if part): count for parts, count in sorted(fired.items())})


def line(found: Counter[str]) -> str:
    return ",".join(f"{name}={count}" for name, count in sorted(found.items()))


class Stage(Protocol):
    """One hook's look at one answer."""

    stopped: bool
    """The text that was fed or closed last must end here; what that gave until then is to be told. Whoever has seen it
    unsets it."""

    async def feed(self, channel: Channel, text: str) -> str:
        """What of the channel may be told by now. Unavailable when nobody can tell."""
        ...

    async def close(self, channel: Channel) -> str:
        """The rest of it."""
        ...


class Hook(Protocol):
    record: GuardrailRecord

    async def before(self, session: Session, texts: Sequence[str]) -> Sequence[str]:
        """The texts of a request as they may go on. ContentRefused: they may not. Unavailable: nobody can tell."""
        ...

    def stage(self, session: Session) -> Stage: ...

    async def close(self) -> None: ...


def refused(guardrail: str, why: str) -> ContentRefused:
    return ContentRefused(f"The guardrail '{guardrail}' refuses this request: {why}. Change it and ask again.")


def unavailable(guardrail: str, retry_after: float) -> Unavailable:
    return Unavailable(
        f"The guardrail '{guardrail}' cannot be asked right now, and nothing passes without it. Try again later.",
        code="guardrail_unavailable",
        retry_after=retry_after,
    )
