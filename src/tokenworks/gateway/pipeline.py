"""The path of a request, top to bottom. docs/request.md walks it with the files it touches."""

import asyncio
import time
from dataclasses import dataclass

from tokenworks.core.caller import Caller
from tokenworks.core.errors import InternalError, InvalidRequest, TokenworksError, UpstreamUnavailable
from tokenworks.core.request import Request
from tokenworks.core.target import Target
from tokenworks.gateway.admission.keys import Keys
from tokenworks.gateway.admission.limits.admit import Admission
from tokenworks.gateway.admission.limits.hold import Hold
from tokenworks.gateway.edge import headers as render
from tokenworks.gateway.edge.exchange import JSON, Exchange, Header
from tokenworks.gateway.metering.attempt import Asked, Attempt, Meter
from tokenworks.gateway.routing.plan import default_model, plan
from tokenworks.gateway.upstreams.http import Answer, Upstreams
from tokenworks.gateway.upstreams.parameters import without_effect
from tokenworks.gateway.upstreams.prepare import Prepared, prepare
from tokenworks.gateway.upstreams.watchdog import Watchdog
from tokenworks.journal.records import Settled
from tokenworks.protocols import codec as find_codec
from tokenworks.protocols.base import Codec, Failing, OwnHeaders, Padded, ReadsHeaders
from tokenworks.protocols.translation import Translation
from tokenworks.snapshot.records import UpstreamRecord
from tokenworks.snapshot.subscriber import Subscriber


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Bytes and seconds. `keep_alive` is the silence after which a waiting stream gets a comment, `padding` that after
    which a caller who waits for a whole answer gets white space."""

    body_bytes: int = 32 * 1024 * 1024
    body_seconds: float = 60.0
    keep_alive: float = 10.0
    padding: float = 20.0


class Pipeline:
    def __init__(
        self,
        snapshot: Subscriber,
        keys: Keys,
        admission: Admission,
        upstreams: Upstreams,
        meter: Meter,
        limits: EdgeLimits,
    ) -> None:
        self._snapshot = snapshot
        self._keys = keys
        self._admission = admission
        self._upstreams = upstreams
        self._meter = meter
        self._limits = limits
        self.interactive = 0
        """Requests of callers who wait, in flight."""

    async def answer(self, exchange: Exchange, codec: Codec) -> None:
        """Answer one request, or raise the one error that the edge tells the caller in the codec's shape."""
        arrived = time.perf_counter_ns()
        self.interactive += 1
        try:
            caller = await self._keys.identify(exchange)
            body = await exchange.read_body(self._limits.body_bytes, self._limits.body_seconds)
            await self.serve(exchange, codec, caller, codec.decode_request(body), arrived)
        finally:
            self.interactive -= 1

    async def serve(
        self, exchange: Exchange, codec: Codec, caller: Caller, request: Request, arrived: int, first_attempt: int = 1
    ) -> Settled:
        """The same for a caller who is known and a request that is read; how the attempt that answered was settled."""
        if isinstance(codec, ReadsHeaders):
            codec.read_headers(request, exchange.header_texts())
        if request.protocol != codec.name:
            codec = exchange.codec = find_codec(request.protocol)
        state = self._snapshot.state
        request.model = request.model or default_model(type(request.task), caller, state).name
        exchange.notes |= {"key_id": caller.key_id, "model": request.model, "stream": request.stream}
        targets = plan(request, caller, state, self._upstreams.in_flight)
        exchange.notes["metered_model"] = request.model
        asked = Asked(exchange.request_id, arrived, caller, request)
        async with await self._admission.hold(asked, state, targets) as hold:
            exchange.degraded = hold.degraded
            for number, target in enumerate(targets, start=first_attempt):
                upstream = state.upstreams[target.upstream]
                try:
                    await hold.enter(upstream.provider)
                    hold.attempts.append(self._meter.open(asked, number, target, upstream))
                    return await self._attempt(exchange, codec, hold, target, upstream)
                except UpstreamUnavailable:
                    if exchange.started or target is targets[-1]:
                        raise
        raise InternalError("a plan without a target")  # plan() gives at least one

    async def _attempt(
        self, exchange: Exchange, codec: Codec, hold: Hold, target: Target, upstream: UpstreamRecord
    ) -> Settled:
        """The last attempt of a hold, on one upstream; however it ends, it is settled once."""
        attempt = hold.attempts[-1]
        request = attempt.asked.request
        identity = (codec.response_id(exchange.request_id), int(time.time()))
        try:
            prepared = prepare(codec, request, upstream, target.model, attempt.observation, identity)
            headers = _headers(exchange, upstream, without_effect(request, upstream, prepared))
            if not request.stream:
                self._pad(exchange, codec, headers)
            with Watchdog(target.limits, upstream.provider, attempt.note_progress, stream=prepared.stream) as dog:
                async with self._upstreams.call(upstream, prepared, target.limits) as answer:
                    if prepared.fold is not None:
                        rest = await _fold(answer, prepared.fold, attempt, dog)
                    elif prepared.stream:
                        rest = await self._stream(exchange, codec, answer, prepared, attempt, dog, headers)
                    else:
                        rest = prepared.relay.whole(await answer.read())
            attempt.output_seen()
            settled = attempt.complete()
            await self._meter.journal.commit()
            await hold.settle()
        except asyncio.CancelledError:
            attempt.cancel()
            raise
        except TokenworksError as error:
            error.provider = error.provider or upstream.provider
            attempt.fail(error)
            raise
        except BaseException:
            attempt.fail(InternalError("internal error"))
            raise
        exchange.notes["output_tokens"] = settled.usage.output
        if exchange.started:
            await exchange.finish(rest)
        else:
            own = codec.answer_headers(attempt.observation) if isinstance(codec, OwnHeaders) else []
            await exchange.respond(200, rest, headers=[*headers, *own])
        return settled

    def _pad(self, exchange: Exchange, codec: Codec, headers: list[Header]) -> None:
        """Keep a caller alive who waits for a whole answer, where the protocol's clients allow it."""
        if self._limits.padding and isinstance(codec, Padded):

            async def start() -> None:
                await exchange.start_stream(JSON, headers)

            exchange.tell_failure = codec.encode_error
            exchange.keep_alive(self._limits.padding, codec.padding, start)

    async def _stream(
        self,
        exchange: Exchange,
        codec: Codec,
        answer: Answer,
        prepared: Prepared,
        attempt: Attempt,
        dog: Watchdog,
        headers: list[Header],
    ) -> bytes:
        """Pass the stream on as it comes; the last bytes are returned, to be sent once the attempt is settled."""

        async def start() -> None:
            await exchange.start_stream(codec.stream_content_type, headers)

        exchange.tell_failure = prepared.relay.fail if isinstance(prepared.relay, Failing) else None
        exchange.keep_alive(self._limits.keep_alive, codec.stream_comment, start)
        seen = 0
        async for chunk in answer.chunks():
            out = prepared.relay.feed(chunk)
            if attempt.observation.deltas != seen:
                seen = attempt.observation.deltas
                attempt.output_seen()
                dog.progress()
            if out:
                dog.delivering = True
                if not exchange.started:
                    await start()
                await exchange.write(out)
                dog.delivered()
        rest = prepared.relay.close()
        if not exchange.started:
            await start()
        return rest


async def _fold(answer: Answer, fold: Translation, attempt: Attempt, dog: Watchdog) -> bytes:
    """Collect a stream for a caller who wants one whole answer."""
    async for chunk in answer.chunks():
        fold.collect(chunk)
        attempt.output_seen()
        dog.progress()
    return fold.folded()


def _headers(exchange: Exchange, upstream: UpstreamRecord, ignored: list[str]) -> list[Header]:
    """InvalidRequest when something has no effect and the caller wants to know it that way."""
    if ignored and render.strict(exchange):
        raise InvalidRequest(f"'{ignored[0]}' has no effect here.", param=ignored[0], code="unsupported_parameter")
    return render.of_answer(exchange, upstream.provider, ignored)
