"""A prediction that runs, as its caller sees it; and what the headers of its creation ask."""

import re
import time

from tokenworks.core.errors import InvalidRequest, TokenworksError
from tokenworks.core.events import ReasoningDelta, TextDelta, UsageReport
from tokenworks.core.usage import Usage
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.journal.records import Settled
from tokenworks.protocols.replicate.codec import CODEC
from tokenworks.protocols.replicate.prediction import Prediction
from tokenworks.protocols.replicate.responses import encode_prediction
from tokenworks.protocols.replicate.stream import encode_event
from tokenworks.protocols.sse import data_of, event_of

LONGEST_WAIT = 60
SHORTEST_LIFE = 5
_WAIT = re.compile(r"(?:^|,)\s*wait(?:=(?P<seconds>\d{1,9}))?\s*(?:,|$)")
_DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s?)?")


class RunningPrediction:
    """A subject of runs.py."""

    stream = True

    def __init__(self, prediction: Prediction, created: int) -> None:
        self.id = prediction.id
        self._prediction = prediction
        self._created = created
        self._events = 0

    @property
    def status(self) -> str:
        return self._prediction.status

    def body(self) -> bytes:
        return encode_prediction(self._prediction)

    def begin(self) -> None:
        """It is `starting` until its model says something: a cold one may take its time."""

    def see(self, block: bytes) -> None:
        self._events += 1
        if self._prediction.status == "starting":
            self._prediction.begin(time.time())
        said = (data_of(block) or b"").decode()
        match event_of(block):
            case b"output":
                self._prediction.see(TextDelta(said))
            case b"logs":
                self._prediction.see(ReasoningDelta(said))

    def succeed(self, whole: bytes, settled: Settled) -> None:
        used = settled.usage
        usage = Usage(used.input, used.cached_input, used.cache_write, used.output, used.reasoning)
        self._prediction.see(UsageReport(usage))
        self._prediction.succeed(time.time())

    def fail(self, error: TokenworksError, told: bool) -> bytes:
        self._prediction.fail(error, time.time())
        return b"" if told else CODEC.encode_stream_error(error)

    def cancel(self) -> bytes:
        self._prediction.cancel(time.time())
        return ending("canceled", f"{self._created}:{self._events}")

    def progress(self, blocks: list[bytes]) -> tuple[str, ...]:
        happened = {event_of(block).decode() for block in blocks}
        return tuple(name for name in ("output", "logs") if name in happened)


def ending(status: str, event_id: str) -> bytes:
    """The event that ends a stream which its run did not end."""
    reasons = {"succeeded": "{}", "canceled": '{"reason":"canceled"}'}
    return encode_event("done", event_id, reasons.get(status, '{"reason":"error"}'))


def waiting(exchange: Exchange) -> float:
    """Seconds that the caller wants to wait for the end, from `Prefer: wait[=N]`; 0 when not at all."""
    preference = (exchange.header(b"prefer") or b"").decode("latin-1")
    wanted = _WAIT.search(preference)
    if wanted is None:
        return 0.0
    seconds = int(wanted["seconds"] or LONGEST_WAIT)
    if not 1 <= seconds <= LONGEST_WAIT:
        raise InvalidRequest(f"'Prefer: wait=N' takes 1 to {LONGEST_WAIT} seconds.", param="Prefer")
    return float(seconds)


def lifetime(exchange: Exchange) -> float | None:
    """Seconds after which it is to be cancelled, from `Cancel-After: 90`, `90s`, `5m` or `1h30m`."""
    given = exchange.header(b"cancel-after")
    if given is None:
        return None
    parts = _DURATION.fullmatch(given.decode("latin-1").strip())
    seconds = (
        sum(int(part or 0) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True)) if parts else 0
    )
    if seconds < SHORTEST_LIFE:
        raise InvalidRequest(
            f"'Cancel-After' takes a duration of at least {SHORTEST_LIFE} s, as in 90s, 5m or 1h30m.",
            param="Cancel-After",
        )
    return float(seconds)
