"""How one answer goes out to its caller, whichever attempts it comes from: begun late, kept alive, never doubled."""

from dataclasses import dataclass

from msgspec.structs import replace

from tokenworks.gateway.edge.exchange import JSON, Exchange
from tokenworks.gateway.edge.headers import Answerer, of_answer
from tokenworks.protocols.base import Codec, Failing, Observation, OwnHeaders, Padded, Relay
from tokenworks.protocols.cost import in_answer, in_stream


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Bytes and seconds. `keep_alive` is the silence after which a waiting stream gets a comment, `padding` that after
    which a caller who waits for a whole answer gets white space."""

    body_bytes: int = 32 * 1024 * 1024
    body_seconds: float = 60.0
    keep_alive: float = 10.0
    padding: float = 20.0


class Delivery:
    """`written` tells whether a part of the answer itself has left: comments and padding are none."""

    def __init__(self, exchange: Exchange, codec: Codec, limits: EdgeLimits, *, stream: bool) -> None:
        self.exchange = exchange
        self.codec = codec
        self.stream = stream
        self.written = False
        self.earlier = 0
        """Attempts on models that were tried before this one."""
        self.kept: list[bytes] | None = None
        """Where somebody keeps the answer: its parts as they leave, comments and the last one's cost left out."""
        self._limits = limits
        self._told: Answerer | None = None
        self._now: Answerer | None = None
        self._waiting = False

    def answered_by(self, answerer: Answerer) -> None:
        """An attempt is about to leave: it is named if the answer's head leaves while it runs."""
        if self.earlier:
            answerer = replace(answerer, attempts=answerer.attempts + self.earlier)
        self._now = answerer
        self.exchange.notes["attempts"] = answerer.attempts
        if answerer.residency:
            self.exchange.notes["residency"] = answerer.residency
        self.wait()

    def wait(self) -> None:
        """From now on the caller is kept alive until the answer begins."""
        if self._waiting:
            return
        self._waiting = True
        if self.stream:
            self.exchange.keep_alive(self._limits.keep_alive, self.codec.stream_comment, self._start)
        elif self._limits.padding and isinstance(self.codec, Padded):
            self.exchange.tell_failure = self.codec.encode_error
            self.exchange.keep_alive(self._limits.padding, self.codec.padding, self._start)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Parameters without effect where it is answered now."""
        return self._now.ignored if self._now is not None else ()

    def relayed_by(self, relay: Relay) -> None:
        """What passes the stream on says how it broke, should it break."""
        if self.stream:
            self.exchange.tell_failure = relay.fail if isinstance(relay, Failing) else None

    async def write(self, out: bytes) -> None:
        """A part of a stream."""
        self.written = True
        if self.kept is not None:
            self.kept.append(out)
        if not self.exchange.started:
            await self._start()
        await self.exchange.write(out)

    async def finish(self, rest: bytes, observation: Observation, charge: int) -> None:
        """The end of a stream, or a whole answer, once it is settled; `charge` is what it costs, in nano-dollars."""
        self.exchange.charge = charge
        if self.kept is not None:
            self.kept.append(rest)
        rest = in_stream(rest, lambda: charge) if self.stream else in_answer(rest, charge)
        if self.stream and not self.exchange.started:
            await self._start()
        if self.exchange.started:
            if self.stream and self._now is not None and self._now != self._told:
                self.kept = None  # of two answerers, or told so
                await self.exchange.write(self._now.as_comment())
            await self.exchange.finish(rest)
        else:
            own = self.codec.answer_headers(observation) if isinstance(self.codec, OwnHeaders) else []
            await self.exchange.respond(200, rest, headers=[*of_answer(self.exchange, self._now), *own])

    async def _start(self) -> None:
        self._told = self._now
        content_type = self.codec.stream_content_type if self.stream else JSON
        await self.exchange.start_stream(content_type, of_answer(self.exchange, self._told))
