"""Between the reservation and the attempts: an answer that was given before, or one that may be given again.

Kept are complete answers with a finish: no error, nothing that was cut, ended by a limit or filtered, or that went on
with a second upstream.
"""

import asyncio
import math
import re
import time
from dataclasses import dataclass

from tokenworks.core.errors import InvalidRequest
from tokenworks.gateway.caching.flights import Flights, Found, Outcome
from tokenworks.gateway.caching.key import key, prefix
from tokenworks.gateway.caching.replay import again, id_of
from tokenworks.gateway.caching.similar import Asked as Similarly
from tokenworks.gateway.caching.similar import Similar, text_of
from tokenworks.gateway.caching.stores import LARGEST, Kept, Store
from tokenworks.gateway.edge.delivery import Delivery
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.gateway.edge.headers import Answerer, strict
from tokenworks.gateway.failover.attempts import Attempts
from tokenworks.gateway.failover.route import Route
from tokenworks.gateway.guardrails.base import line
from tokenworks.gateway.metering.attempt import CACHE
from tokenworks.journal.records import Settled
from tokenworks.protocols.base import Observation
from tokenworks.snapshot.records import CacheRecord, PolicyRecord
from tokenworks.snapshot.residency import evidence

HEADER = b"x-tokenworks-cache"
SIMILARITY = b"x-tokenworks-cache-similarity"
PARTS = 1_000_000
_SHARE = re.compile(rb"0?\.\d{1,6}|1(?:\.0{1,6})?")


@dataclass(frozen=True, slots=True)
class Wish:
    """An answer no older than `seconds` to what has this `key`, or is `similar`."""

    key: str
    seconds: int
    similar: Similarly | None


class Cached:
    """What the attempts do, unless it was done before. `secret` is the same in all gateways that share a store."""

    def __init__(self, attempts: Attempts, store: Store, secret: bytes) -> None:
        self.similar: Similar | None = None
        """Where similar answers are found; set once there is somebody who embeds texts."""
        self._attempts = attempts
        self._store = store
        self._secret = secret
        self._flights = Flights()

    async def answer(self, delivery: Delivery, route: Route) -> Settled:
        delivery.kept, delivery.exchange.cached = None, ()
        wish = self._wish(delivery, route)
        if wish is None:
            return await self._attempts.answer(delivery, route)
        kept = await self._store.get(wish.key)
        if kept is not None and _is_good(kept, wish, route):
            return await self._repeat(delivery, route, Found(kept))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        delivery.wait()
        limits = route.targets[0].limits
        mine, found = await self._flights.first(wish.key, min(limits.first_token, limits.total))
        if found is not None and _may_answer(found.kept, route):
            return await self._repeat(delivery, route, found)
        delivery.exchange.cached = ((HEADER, b"miss"),)
        delivery.kept = []
        route = route.after(loop.time() - begun)
        if not mine:
            settled, _ = await self._ask(delivery, route, wish)
            return settled
        outcome: Found | Outcome = Outcome.FAILED
        try:
            settled, outcome = await self._ask(delivery, route, wish)
        finally:
            self._flights.land(wish.key, outcome)
        return settled

    async def close(self) -> None:
        await self._store.close()

    def _wish(self, delivery: Delivery, route: Route) -> Wish | None:
        """None where there is no cache for this request."""
        exchange, policy, asked = delivery.exchange, route.model.policy, route.asked
        seconds = wished(policy, route.cache, exchange)
        threshold = similarity(policy, route.cache, exchange) if seconds else 0.0
        if not seconds or route.uncacheable or exchange.keeper is not None:
            return None
        tight = strict(exchange)
        name = key(self._secret, delivery.codec, asked.request, asked.caller, strict=tight)
        if name is None:
            return None
        similar = None
        if threshold and (text := text_of(asked.request, policy.semantic_temperature)) is not None:
            embedder = policy.semantic_model
            alike = prefix(self._secret, delivery.codec, asked.request, asked.caller, strict=tight, embedder=embedder)
            similar = Similarly(alike, text, embedder, threshold) if alike is not None else None
        return Wish(name, seconds, similar)

    async def _ask(self, delivery: Delivery, route: Route, wish: Wish) -> tuple[Settled, Found | Outcome]:
        """From whoever was asked something similar, or else from the targets. What may be given again is kept."""
        policy, similar, vector = route.model.policy, self.similar, None
        if wish.similar is not None and similar is not None:
            vector = await similar.vector(wish.similar, route.asked.caller)
            if vector is not None:
                found = await similar.find(wish.similar, vector, lambda kept: _is_good(kept, wish, route))
                if found is not None:
                    delivery.kept = None
                    return await self._repeat(delivery, route, found), found
        settled = await self._attempts.answer(delivery, route)
        if (answer := _complete(delivery, route, settled)) is None:
            return settled, Outcome.UNIQUE
        seconds = max(policy.cache, policy.cache_max)
        await self._store.put(wish.key, answer, seconds)
        if wish.similar is not None and similar is not None and vector is not None:
            await similar.note(wish.similar, vector, wish.key, seconds)
        return settled, Found(answer)

    async def _repeat(self, delivery: Delivery, route: Route, found: Found) -> Settled:
        asked, exchange, meter, kept = route.asked, delivery.exchange, self._attempts.meter, found.kept
        charge = kept.charge * round(route.model.policy.cache_price * PARTS) // PARTS
        proven = evidence(route.policies, route.upstreams[kept.upstream]) if route.policies else ""
        fired = line(route.watch.fired) if route.watch is not None else ""
        attempt = meter.repeat(asked, asked.first_attempt, kept.model, charge, kept.finish_reason, proven, fired)
        route.hold.add(attempt)
        await meter.journal.commit()
        await route.hold.settle()
        age, alike = max(int(time.time() - kept.at), 0), found.similarity
        told = b"hit" if alike == 1.0 else b"semantic; similarity=%.4f" % (math.floor(alike * 10_000) / 10_000)
        exchange.cached = ((HEADER, told), (b"age", b"%d" % age))
        exchange.notes["cache"] = "hit" if alike == 1.0 else "semantic"
        delivery.answered_by(Answerer(CACHE, kept.model, 1, tuple(kept.ignored), proven))
        response_id = delivery.codec.response_id(exchange.request_id)
        *pieces, last = again(kept.pieces, kept.id, response_id, charge)
        for piece in pieces:
            await delivery.write(piece)
        await delivery.finish(last, Observation(), charge)
        assert attempt.settled is not None  # noqa: S101 -- `repeat` settles it
        return attempt.settled


def wished(policy: PolicyRecord, own: CacheRecord | None, exchange: Exchange) -> int:
    """Seconds that an answer may be old; 0: no cache. The request's header comes first, then its project's wish, then
    the model's policy, which bounds both. InvalidRequest when the header says neither seconds nor off."""
    most = max(policy.cache, policy.cache_max)
    if not most:
        return 0
    if (told := exchange.header(HEADER)) is None:
        return policy.cache if own is None or own.seconds is None else min(own.seconds, most)
    if told.lower() == b"off":
        return 0
    if not told.isdigit() or len(told) > 10:
        raise InvalidRequest("'x-tokenworks-cache' must be a number of seconds or 'off'.", param="x-tokenworks-cache")
    return min(int(told), most)


def similarity(policy: PolicyRecord, own: CacheRecord | None, exchange: Exchange) -> float:
    """How similar a text has to be, from 0 to 1; 0: the same. In the same order, where the policy names an embedder."""
    if not policy.semantic_model:
        return 0.0
    if (told := exchange.header(SIMILARITY)) is None:
        return policy.semantic_threshold if own is None or own.similarity is None else own.similarity
    if told.lower() == b"off":
        return 0.0
    if not _SHARE.fullmatch(told):
        name = SIMILARITY.decode()
        raise InvalidRequest(f"'{name}' must be a number above 0 and up to 1, or 'off'.", param=name)
    return float(told)


def _is_good(kept: Kept, wish: Wish, route: Route) -> bool:
    return time.time() - kept.at < wish.seconds and _may_answer(kept, route)


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
