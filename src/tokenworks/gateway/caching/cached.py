"""Between the reservation and the attempts: an answer that was given before, or one that may be given again.

Kept are complete answers with a finish: no error, nothing that was cut, ended by a limit or filtered, or that went on
with a second upstream.
"""

import time

from tokenworks.core.errors import InvalidRequest
from tokenworks.gateway.caching.key import key
from tokenworks.gateway.caching.replay import again, id_of
from tokenworks.gateway.caching.stores import LARGEST, Kept, Store
from tokenworks.gateway.edge.delivery import Delivery
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.gateway.edge.headers import Answerer, strict
from tokenworks.gateway.failover.attempts import Attempts
from tokenworks.gateway.failover.route import Route
from tokenworks.gateway.metering.attempt import CACHE
from tokenworks.journal.records import Settled
from tokenworks.protocols.base import Observation
from tokenworks.snapshot.records import PolicyRecord
from tokenworks.snapshot.residency import evidence

HEADER = b"x-tokenworks-cache"
PARTS = 1_000_000


class Cached:
    """What the attempts do, unless it was done before. `secret` is the same in all gateways that share a store."""

    def __init__(self, attempts: Attempts, store: Store, secret: bytes) -> None:
        self._attempts = attempts
        self._store = store
        self._secret = secret

    async def answer(self, delivery: Delivery, route: Route) -> Settled:
        exchange, policy = delivery.exchange, route.model.policy
        delivery.kept, exchange.cached = None, ()
        seconds = wished(policy, exchange)
        if not seconds or route.uncacheable or exchange.keeper is not None:
            return await self._attempts.answer(delivery, route)
        asked = route.asked
        name = key(self._secret, delivery.codec, asked.request, asked.caller, strict=strict(exchange))
        if name is None:
            return await self._attempts.answer(delivery, route)
        kept = await self._store.get(name)
        if kept is not None and time.time() - kept.at < seconds and _may_answer(kept, route):
            return await self._repeat(delivery, route, kept)
        exchange.cached = ((HEADER, b"miss"),)
        delivery.kept = []
        settled = await self._attempts.answer(delivery, route)
        if (answer := _complete(delivery, route, settled)) is not None:
            await self._store.put(name, answer, max(policy.cache, policy.cache_max))
        return settled

    async def close(self) -> None:
        await self._store.close()

    async def _repeat(self, delivery: Delivery, route: Route, kept: Kept) -> Settled:
        asked, exchange, meter = route.asked, delivery.exchange, self._attempts.meter
        charge = kept.charge * round(route.model.policy.cache_price * PARTS) // PARTS
        proven = evidence(route.policies, route.upstreams[kept.upstream]) if route.policies else ""
        attempt = meter.repeat(asked, asked.first_attempt, kept.model, charge, kept.finish_reason, proven)
        route.hold.add(attempt)
        await meter.journal.commit()
        await route.hold.settle()
        age = max(int(time.time() - kept.at), 0)
        exchange.cached = ((HEADER, b"hit"), (b"age", b"%d" % age))
        exchange.notes["cache"] = "hit"
        delivery.answered_by(Answerer(CACHE, kept.model, 1, tuple(kept.ignored), proven))
        response_id = delivery.codec.response_id(exchange.request_id)
        *pieces, last = again(kept.pieces, kept.id, response_id, charge)
        for piece in pieces:
            await delivery.write(piece)
        await delivery.finish(last, Observation(), charge)
        assert attempt.settled is not None  # noqa: S101 -- `repeat` settles it
        return attempt.settled


def wished(policy: PolicyRecord, exchange: Exchange) -> int:
    """Seconds that an answer may be old; 0: no cache. InvalidRequest when the caller's header says neither."""
    most = max(policy.cache, policy.cache_max)
    if not most or (told := exchange.header(HEADER)) is None:
        return policy.cache
    if told.lower() == b"off":
        return 0
    if not told.isdigit() or len(told) > 10:
        raise InvalidRequest("'x-tokenworks-cache' must be a number of seconds or 'off'.", param="x-tokenworks-cache")
    return min(int(told), most)


def _may_answer(kept: Kept, route: Route) -> bool:
    """Who answered then may still: where answers may come from holds for those from the cache, too."""
    return any((target.upstream, target.model) == (kept.upstream, kept.model) for target in route.targets)


def _complete(delivery: Delivery, route: Route, settled: Settled) -> Kept | None:
    """The answer that was just given, where it may be given again."""
    pieces = delivery.kept
    if not pieces or settled.outcome != "completed" or delivery.exchange.ended or sum(map(len, pieces)) > LARGEST:
        return None
    attempt = next((each for each in route.hold.attempts if each.settled is settled), None)
    if attempt is None or "content_filter" in attempt.observation.finish_reasons.values():
        return None
    return Kept(
        time.time(),
        pieces,
        *attempt.answerer,
        settled.charge,
        settled.finish_reason,
        id_of(pieces[0], stream=delivery.stream),
        list(delivery.ignored),
    )
