"""The loop: an attempt, what became of it, who is next. All of it under the route's total limit."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from tokenworks.core.errors import Fault, InvalidRequest, TokenworksError
from tokenworks.core.target import Target
from tokenworks.gateway.admission.limits.hold import Hold
from tokenworks.gateway.edge import headers
from tokenworks.gateway.edge.delivery import Delivery
from tokenworks.gateway.failover.trying import Try, settle
from tokenworks.gateway.metering.attempt import Asked, Meter
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.gateway.upstreams.parameters import without_effect
from tokenworks.gateway.upstreams.prepare import prepare
from tokenworks.gateway.upstreams.watchdog import Watchdog
from tokenworks.journal.records import Settled
from tokenworks.snapshot.records import ModelRecord, UpstreamRecord


@dataclass(frozen=True, slots=True)
class Route:
    """What one request may be tried on. Attempts are numbered from `first_attempt`."""

    asked: Asked
    model: ModelRecord
    targets: list[Target]
    upstreams: Mapping[str, UpstreamRecord]
    hold: Hold
    first_attempt: int = 1


class Attempts:
    """One for all requests of a gateway."""

    def __init__(self, upstreams: Upstreams, meter: Meter) -> None:
        self._upstreams = upstreams
        self._meter = meter

    async def answer(self, delivery: Delivery, route: Route) -> Settled:
        """How the attempt that answered was settled. Raises the error that the caller is to be told."""
        left = list(route.targets)
        while True:
            target = left.pop(0)
            try:
                upstream = route.upstreams[target.upstream]
                await route.hold.enter(upstream.provider)
                one = self._open(delivery, route, target)
                await one.begin(self._upstreams.call(upstream, one.prepared, target.limits))
                rest = await one.rest(delivery)
                settled = await self._settle(one, route.hold)
                break
            except TokenworksError as error:
                if not left or delivery.written or error.fault in (Fault.CALLER, Fault.OURS, Fault.CONTENT_POLICY):
                    raise
        delivery.exchange.notes["output_tokens"] = settled.usage.output
        await delivery.finish(rest, one.attempt.observation)
        return settled

    def _open(self, delivery: Delivery, route: Route, target: Target) -> Try:
        """InvalidRequest when this upstream cannot carry what is asked, or not as strictly as the caller wants it."""
        upstream, request, hold = route.upstreams[target.upstream], route.asked.request, route.hold
        number = route.first_attempt + len(hold.attempts)
        attempt = self._meter.open(route.asked, number, target, upstream)
        hold.add(attempt)
        identity = (delivery.codec.response_id(delivery.exchange.request_id), int(time.time()))
        try:
            prepared = prepare(delivery.codec, request, upstream, target.model, attempt.observation, identity)
            ignored = without_effect(request, upstream, prepared)
            if ignored and headers.strict(delivery.exchange):
                raise InvalidRequest(
                    f"'{ignored[0]}' has no effect here.", param=ignored[0], code="unsupported_parameter"
                )
        except BaseException as error:
            if isinstance(error, InvalidRequest):
                error.fault = Fault.UNSUITABLE
            settle(attempt, error)
            raise
        delivery.answered_by(headers.Answerer(upstream.provider, target.model, len(hold.attempts), tuple(ignored)))
        delivery.relayed_by(prepared.relay)
        dog = Watchdog(target.limits, upstream.provider, attempt.note_progress, stream=prepared.stream)
        return Try(attempt, target, prepared, dog)

    async def _settle(self, one: Try, hold: Hold) -> Settled:
        try:
            settled = one.attempt.complete()
            await self._meter.journal.commit()
            await hold.settle()
        except BaseException as error:
            settle(one.attempt, error)
            raise
        return settled
