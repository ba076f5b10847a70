"""Listens to what replicas of ours hold: one stream for each that shares a model with another one."""

import asyncio
import logging

import msgspec

from tokenworks.core.errors import TokenworksError, UpstreamRejected
from tokenworks.core.target import RouteLimits
from tokenworks.gateway.routing.held import Held
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.gateway.upstreams.prepare import Outgoing
from tokenworks.protocols.worker.codec import CODEC as WORKER
from tokenworks.protocols.worker.framing import Frames
from tokenworks.protocols.worker.kv import KVEvent
from tokenworks.snapshot.records import UpstreamRecord
from tokenworks.snapshot.state import State

PATH = "/kv_events"
FIRST, LONGEST = 0.1, 5.0
"""Seconds before it is listened again, twice as long each time."""
_ENCODE = msgspec.json.Encoder().encode
_DECODER: msgspec.msgpack.Decoder[KVEvent] = msgspec.msgpack.Decoder(KVEvent)
log = logging.getLogger(__name__)


class KVListeners:
    def __init__(self, upstreams: Upstreams, held: Held) -> None:
        self._upstreams = upstreams
        self._held = held
        self._tasks: dict[str, tuple[str, asyncio.Task[None]]] = {}
        """By upstream: where it is listened to, and who does."""
        self._ending: set[asyncio.Task[None]] = set()

    def changed(self, state: State) -> None:
        """Called in the event loop with each new state."""
        wanted = _worth_it(state)
        for name, (address, _) in list(self._tasks.items()):
            if name not in wanted or wanted[name].base_url != address:
                self._leave(name)
        for name, upstream in wanted.items():
            if name not in self._tasks:
                task = asyncio.create_task(self._listen(upstream), name=f"kv events of {name}")
                self._tasks[name] = (upstream.base_url, task)

    async def stop(self) -> None:
        for name in list(self._tasks):
            self._leave(name)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _leave(self, name: str) -> None:
        _, task = self._tasks.pop(name)
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        self._held.forget(name)

    async def _listen(self, upstream: UpstreamRecord) -> None:
        wait = FIRST
        while True:
            try:
                wait = FIRST if await self._hear(upstream) else wait
            except UpstreamRejected as error:
                if error.upstream_status in (404, 405):
                    return  # this engine tells nothing
                log.warning("%s does not tell what it holds: %s", upstream.id, error)
            except (TokenworksError, ValueError) as error:
                log.debug("%s no longer tells what it holds: %s", upstream.id, error)
            finally:
                self._held.heard(upstream.id, live=False)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST)

    async def _hear(self, upstream: UpstreamRecord) -> bool:
        """Until the stream ends; whether anything was told."""
        held, told = self._held, False
        outgoing = Outgoing(WORKER, _ENCODE(held.wanted(upstream.id)), PATH, {})
        reader = Frames(_DECODER)
        async with self._upstreams.call(upstream, outgoing, RouteLimits(), counted=False) as answer:
            held.heard(upstream.id, live=True)
            async for chunk in answer.chunks():
                for event in reader.feed(chunk):
                    held.take(upstream.id, event)
                    told = True
        return told


def _worth_it(state: State) -> dict[str, UpstreamRecord]:
    """Replicas that a request may be sent to instead of another one."""
    found: dict[str, UpstreamRecord] = {}
    for model in state.models.values():
        if len(model.targets) < 2:
            continue
        ours = {}
        for target in model.targets:
            upstream = state.upstreams.get(target.upstream)
            if (
                upstream is not None
                and upstream.local
                and upstream.state == "ready"
                and WORKER.name in upstream.protocols
            ):
                ours[upstream.id] = upstream
        if len(ours) > 1:
            found |= ours
    return found
