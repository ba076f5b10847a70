"""One try: a call to one upstream from its first byte to its last, watched, and settled once however it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from tokenworks.core.errors import InternalError, TokenworksError, UpstreamError
from tokenworks.core.target import Target
from tokenworks.gateway.edge.delivery import Delivery
from tokenworks.gateway.edge.headers import Answerer
from tokenworks.gateway.guardrails.answer import Watched
from tokenworks.gateway.metering.attempt import Attempt
from tokenworks.gateway.upstreams.http import Answer
from tokenworks.gateway.upstreams.prepare import Prepared
from tokenworks.gateway.upstreams.quirks import choices
from tokenworks.gateway.upstreams.watchdog import Watchdog
from tokenworks.protocols.base import Concluding, Ending, Framed
from tokenworks.protocols.cost import in_stream
from tokenworks.protocols.translation import Translation

MOST_REMEMBERED = 4 * 1024 * 1024
"""Bytes of a stream; a longer one is not gone on with by another upstream."""


class Overtaken(BaseException):
    """Another attempt at the same request answered first."""


class Try:
    """`begin`, then `rest`, which may run in different tasks; `abandon` when there is no `rest`."""

    def __init__(
        self,
        attempt: Attempt,
        target: Target,
        prepared: Prepared,
        dog: Watchdog,
        answerer: Answerer,
        *,
        resumes: bool = False,
        watched: Watched | None = None,
    ) -> None:
        self.attempt = attempt
        self.target = target
        self.prepared = prepared
        self.answerer = answerer
        self.resumes = resumes
        """It was told what was said, and goes on from there."""
        self.watched = watched
        """What the relay says goes through this, and only then to the caller."""
        self.overtaken = False
        self.lost: UpstreamError | None = None
        """How the upstream was lost once every choice had its finish: the answer is whole, only its end is ours."""
        self._over = False
        """Every choice has its finish, and that was passed on."""
        self._dog = dog
        self._call: AbstractAsyncContextManager[Answer] | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._ready: list[bytes] = []
        """What the caller is to get of what came so far."""
        self.passed: list[bytes] | None = None
        """Where somebody wants it: what came of a stream that is passed on as it comes."""
        self._passed_bytes = 0
        self._seen = 0
        self._end = b""

    async def begin(self, call: AbstractAsyncContextManager[Answer]) -> None:
        """Until there is something to show: the first output of a stream, or all of an answer that is not streamed."""
        try:
            with self._dog:
                answer = await call.__aenter__()
                self._call = call
                if not self.prepared.stream:
                    self._end = self.prepared.relay.whole(await answer.read())
                    await self._finish_watched()
                    return
                guard = self.attempt.guard
                frame = spoken.shortest_frame if isinstance(spoken := self.prepared.codec, Framed) else 0
                self._chunks = guard.within(answer.chunks(), self.attempt, frame) if guard else answer.chunks()
                async for chunk in self._chunks:
                    out = self._take(chunk)
                    if out or (self.watched is not None and (out := await self._looked_at(self.watched))):
                        self._ready.append(out)
                    if self._progressed():
                        return
        except BaseException as error:  # noqa: BLE001 - raised again, as what it stands for
            raise await self.abandon(error) from None

    async def rest(self, delivery: Delivery) -> bytes:
        """Pass on what came and comes; the last bytes are returned, to be sent once the attempt is settled."""
        try:
            if self._chunks is not None:
                await self._to_its_end(delivery, self._chunks)
            await self._close(None)
        except BaseException as error:  # noqa: BLE001 - raised again, as what it stands for
            raise await self.abandon(error) from None
        self.attempt.output_seen()
        if self.watched is not None and self.watched.ended:
            delivery.exchange.ended = self.watched.ended
        return self._end

    def remember(self) -> None:
        """Another attempt may have to go on with what this one says."""
        if isinstance(self.prepared.relay, Translation):
            self.prepared.relay.told = []
        elif self.prepared.stream:
            self.passed = []

    @property
    def first_token(self) -> float:
        """Seconds until the first output; 0 where none could be told from the rest."""
        return self.attempt.first_token if self._chunks is not None else 0.0

    async def abandon(self, error: BaseException) -> BaseException:
        """End the call and settle the attempt; the error that the caller is to be told."""
        told = await self._close(error) or error
        if isinstance(told, asyncio.CancelledError):
            await self.attempt.count_prompt()
        settle(self.attempt, Overtaken() if self.overtaken else told)
        return told

    async def _to_its_end(self, delivery: Delivery, chunks: AsyncIterator[bytes]) -> None:
        try:
            with self._dog:
                await self._stream(delivery, chunks)
        except BaseException as error:  # noqa: BLE001 - raised again, unless all was said
            lost, relay = await self._close(error) or error, self.prepared.relay
            if not (self._over and isinstance(lost, UpstreamError) and isinstance(relay, Concluding)):
                raise lost from None
            self.lost, counted = lost, "" if self.attempt.observation.usage else ", and its usage is our own count"
            await self.attempt.count_prompt()
            note = f"the upstream was lost after its last word ({lost.code}): the answer is whole{counted}"
            self._end = relay.conclude(self.attempt.usage, note)
            await self._finish_watched()
            delivery.exchange.notes["lost"] = lost.code

    async def _stream(self, delivery: Delivery, chunks: AsyncIterator[bytes]) -> None:
        fold = self.prepared.fold
        if fold is None:
            delivery.relayed_by(self.prepared.relay)
            if self._ready:
                await self._pass_on(delivery, b"".join(self._ready))
        self._note_finish()
        watched = self.watched
        async for chunk in chunks if watched is None or not watched.over else _none():
            out = self._take(chunk)
            self._progressed()
            if out or (watched is not None and (out := await self._looked_at(watched))):
                await self._pass_on(delivery, out)
            self._note_finish()
            if watched is not None and watched.over:
                break
        relay, ended = self.prepared.relay, self.attempt.guard.ended if self.attempt.guard is not None else ""
        if watched is not None and watched.over:
            self.attempt.cut()
            ended = watched.ended
        if ended and isinstance(relay, Ending):
            delivery.exchange.ended = ended
            self._end = relay.end(self.attempt.usage, ended)
        else:
            self._end = relay.close() if fold is None else fold.folded()
        await self._finish_watched()

    async def _looked_at(self, watched: Watched) -> bytes:
        """What may be told by now of what was taken."""
        if not watched.waiting:
            return b""
        self._dog.delivering = True  # whatever takes long now, it is not the upstream
        try:
            out = await watched.written()
        finally:
            self._dog.delivered()
        return out if self.attempt.observation.usage is None else in_stream(out, self._charge)

    async def _finish_watched(self) -> None:
        if self.watched is not None:
            self._dog.delivering = True
            self._end += await self.watched.finished()
            self._dog.delivered()

    def _take(self, chunk: bytes) -> bytes:
        if self.prepared.fold is not None:
            self.prepared.fold.collect(chunk)
            return b""
        seen = self.attempt.observation
        deltas, size = seen.deltas, seen.size
        try:
            out = self.prepared.relay.feed(chunk)
        except UpstreamError:
            seen.deltas, seen.size = deltas, size  # words before the garbled one, which the caller never got
            raise
        if self.passed is not None:
            self.passed.append(chunk)
            self._passed_bytes += len(chunk)
            if self._passed_bytes > MOST_REMEMBERED:
                self.passed = None
        if seen.usage is None:  # what the beginning of a stream says is no total
            return out
        return in_stream(out, self._charge)

    def _charge(self) -> int:
        return self.attempt.charge

    def _note_finish(self) -> None:
        finished = self.attempt.observation.finish_reasons
        if finished and len(finished) >= choices(self.attempt.asked.request):
            self._over = True

    def _progressed(self) -> bool:
        deltas = self.attempt.observation.deltas
        if deltas == self._seen:
            return False
        self._seen = deltas
        self.attempt.output_seen()
        self._dog.progress()
        return True

    async def _pass_on(self, delivery: Delivery, out: bytes) -> None:
        self._dog.delivering = True
        await delivery.write(out)
        self._dog.delivered()

    async def _close(self, error: BaseException | None) -> BaseException | None:
        """What the call made of the error: a lost connection becomes the error it stands for."""
        call, self._call = self._call, None
        if call is None:
            return None
        try:
            await call.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)
        except BaseException as told:  # noqa: BLE001 - the caller raises it
            return told
        return None


async def _none() -> AsyncIterator[bytes]:
    """Nothing more."""
    return
    yield


def settle(attempt: Attempt, error: BaseException) -> None:
    if isinstance(error, Overtaken):
        attempt.lose()
    elif isinstance(error, asyncio.CancelledError):
        attempt.cancel()
    elif isinstance(error, TokenworksError):
        error.provider = error.provider or attempt.provider
        attempt.fail(error)
    else:
        attempt.fail(InternalError("internal error"))
