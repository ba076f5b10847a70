"""Copies of requests for a model that is tried out: nobody waits for them, sees their answers or pays for them.

A copy starts once its request was answered, with what was asked and nothing of the answer. It has a planner, health,
connections and keys that rest of its own, so that nothing of it changes where requests go; it is one attempt on one
target; it is held to the project's residency policy, to what the caller says of privacy (zdr, data_collection, region),
and to the operator's limits on models and providers; what it takes is journaled as the operator's. When too many run it
is dropped, and counted.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import structlog
from msgspec.structs import replace as replace_record

from tokenworks.core.aliases.asking import facts
from tokenworks.core.aliases.records import Resolution
from tokenworks.core.aliases.resolving import resolve
from tokenworks.core.caller import OPERATOR, Caller
from tokenworks.core.errors import TokenworksError
from tokenworks.core.request import Request
from tokenworks.gateway.admission.limits.admit import Admission
from tokenworks.gateway.admission.residency import Here
from tokenworks.gateway.batches.collect import CollectingExchange
from tokenworks.gateway.edge.delivery import Delivery, EdgeLimits
from tokenworks.gateway.failover.attempts import Attempts
from tokenworks.gateway.failover.health import Health
from tokenworks.gateway.failover.route import Route
from tokenworks.gateway.guardrails.guardrails import Guardrails
from tokenworks.gateway.metering.attempt import Asked, Meter
from tokenworks.gateway.routing.plan import Facts
from tokenworks.gateway.routing.planner import Planner
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.journal.writer import Journal
from tokenworks.protocols.base import Codec
from tokenworks.snapshot.state import State
from tokenworks.snapshot.subscriber import Subscriber
from tokenworks.telemetry.metrics import Metrics

MOST_BYTES = 64 * 1024 * 1024
"""Of the bodies of all copies that run."""
NOBODY = Caller("shadow", "shadow", OPERATOR)
UNSEEN = EdgeLimits(padding=0)

log = structlog.get_logger("tokenworks.gateway")


@dataclass(frozen=True, slots=True)
class Copy:
    request: Request
    via: Resolution
    caller: Caller
    path: str
    codec: Codec


class Shadows:
    def __init__(
        self,
        snapshot: Subscriber,
        admission: Admission,
        cluster_key: bytes,
        journal: Journal,
        metrics: Metrics,
        here: Here,
        guardrails: Guardrails,
    ) -> None:
        self._snapshot = snapshot
        self._admission = admission
        self._guardrails = guardrails
        self._count = metrics.shadows
        standings, self._upstreams = Health(), Upstreams(cluster_key)
        self._planner = Planner(Facts(self._upstreams.in_flight, standings, here=here))
        meter = Meter(journal, Metrics())  # the others count what callers asked for
        self._attempts = Attempts(self._upstreams, meter, standings, self._planner.answered)
        self._running: Counter[str] = Counter()
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def copy(self, asked: Asked, codec: Codec, path: str) -> Copy | None:
        """If its alias says so. To be made before anything is fitted to the model that answers."""
        via = asked.request.via
        if via is None or not via.shadow:
            return None
        request = replace(asked.request, ignored=list(asked.request.ignored), shadow=True)
        return Copy(request, via, asked.caller, path, codec)

    def beside(self, copy: Copy | None, guarded: Request) -> contextlib.AbstractContextManager[None]:
        """When what happens inside is over, the copy starts. `guarded`: the request as guardrails let it go on, whose
        texts are the copy's, too."""
        if copy is None:
            return _NONE
        copy.request.task, copy.request.body = guarded.task, guarded.body
        copy.request.user, copy.request.metadata = guarded.user, guarded.metadata
        copy.request.options = guarded.options
        return self._copied(copy)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._upstreams.close()

    @contextlib.contextmanager
    def _copied(self, copy: Copy) -> Iterator[None]:
        try:
            yield
        finally:
            self._start(copy)

    def _start(self, copy: Copy) -> None:
        alias, size = copy.via.alias, len(copy.request.body)
        if self._running[alias] >= copy.via.copies or self._bytes + size > MOST_BYTES:
            self._count.labels(alias, "dropped").inc()
            return
        self._running[alias] += 1
        self._bytes += size
        task = asyncio.create_task(self._run(copy), name=f"shadow {copy.request.id}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)

    async def _run(self, copy: Copy) -> None:
        alias, outcome = copy.via.alias, "failed"
        try:
            await self._answer(copy)
            outcome = "completed"
        except TokenworksError as error:
            log.info("shadow failed", request_id=copy.request.id, alias=alias, code=error.code, message=error.message)
        except Exception:
            log.exception("a bug", request_id=copy.request.id, alias=alias)
        finally:
            self._running[alias] -= 1
            self._bytes -= len(copy.request.body)
            self._count.labels(alias, outcome).inc()

    async def _answer(self, copy: Copy) -> None:
        request, via, caller, state = copy.request, copy.via, copy.caller, self._snapshot.state
        further = resolve(via.shadow, state.alias, facts(request, caller, time.time()))
        request.model = further.model if further is not None else via.shadow
        request.via = via._replace(model=request.model)
        request.routing = request.routing.privacy if request.routing is not None else None
        request.tenant = f"shadow {request.tenant}"
        [target, *_] = self._planner.plan(request, caller, state)
        request = await self._guarded(copy, state)
        targets = [replace(target, price=target.cost)]  # limits of money count what it costs
        exchange = _Unseen(copy.path, f"{request.id}.shadow")
        asked = Asked(exchange.request_id, time.perf_counter_ns(), NOBODY, request)
        model = state.models[request.model]
        model = replace_record(model, policy=replace_record(model.policy, retries=0, hedge=0.0))
        policies = state.policies(caller.organization_id, caller.project_id)
        delivery = Delivery(exchange, copy.codec, UNSEEN, stream=request.stream)
        async with await self._admission.hold(asked, state, targets) as hold:
            await self._attempts.answer(delivery, Route(asked, model, targets, state.upstreams, hold, None, policies))

    async def _guarded(self, copy: Copy, state: State) -> Request:
        """As the guardrails of its own model let it go on; those of the one that answered have looked at it already."""
        caller, request = copy.caller, copy.request
        looked = state.guardrails_of(caller.key_id, caller.project_id, copy.via.model)
        own = state.guardrails_of(caller.key_id, caller.project_id, request.model)
        others = replace(state, guardrails={each.name: each for each in own if each not in looked})
        return await self._guardrails.allowed(request, caller, others)


class _Unseen(CollectingExchange):
    async def _collect(self, message: dict[str, Any]) -> None:
        """Nobody reads it."""


_NONE = contextlib.nullcontext()
