"""What gateways are told: the snapshot's keys, models and upstreams, made from keys, offers and replicas."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from msgspec.structs import replace as replace_record

from tokenworks.config.records import Stated
from tokenworks.control.offers import Offer, answers
from tokenworks.control.pricing.book import Published
from tokenworks.control.residency import placed
from tokenworks.control.storage.api_keys import ApiKey
from tokenworks.control.storage.fleet import Replica
from tokenworks.snapshot.publisher import Publisher
from tokenworks.snapshot.records import (
    FREE,
    AliasRecord,
    CacheRecord,
    GuardrailRecord,
    LimitRecord,
    ModelRecord,
    OwnKeysRecord,
    PriceRecord,
    ResidencyRecord,
    SinkRecord,
    SpendRecord,
    TargetRecord,
    UpstreamRecord,
)
from tokenworks.snapshot.residency import Labels


class Announcer:
    """Keeps the publisher's state equal to the facts. The caller gives whole facts, the publisher finds the change."""

    def __init__(
        self,
        publisher: Publisher,
        offers: Mapping[str, Offer],
        endpoints: Iterable[UpstreamRecord],
        dates: Mapping[str, int],
        installation: Stated,
    ) -> None:
        """`dates`: when each model was first seen."""
        self._publisher = publisher
        self._dates = dict(dates)
        self.installation = installation
        self._offers = offers
        self._endpoints = {endpoint.id: endpoint for endpoint in endpoints}
        self._replicas: Sequence[Replica] = ()
        self._book = Published({}, {})
        self._aliases: Sequence[AliasRecord] = ()

    @property
    def endpoints(self) -> Mapping[str, UpstreamRecord]:
        return self._endpoints

    def announce_keys(self, keys: Iterable[ApiKey]) -> None:
        """All keys that are valid."""
        records = {key.digest: key.record() for key in keys}
        self._publisher.publish(replace(self._publisher.state, keys=records))

    def add_key(self, key: ApiKey) -> None:
        state = self._publisher.state
        self._publisher.publish(replace(state, keys={**state.keys, key.digest: key.record()}))

    def remove_keys(self, digests: Iterable[str]) -> None:
        state, gone = self._publisher.state, set(digests)
        keys = {digest: record for digest, record in state.keys.items() if digest not in gone}
        self._publisher.publish(replace(state, keys=keys))

    def announce_limits(self, limits: Iterable[LimitRecord]) -> None:
        """All limits that there are."""
        self._publisher.publish(replace(self._publisher.state, limits={limit.name: limit for limit in limits}))

    def put_limits(self, limits: Iterable[LimitRecord]) -> None:
        state = self._publisher.state
        changed = {limit.name: limit for limit in limits}
        self._publisher.publish(replace(state, limits={**state.limits, **changed}))

    def remove_limits(self, names: Iterable[str]) -> None:
        state, gone = self._publisher.state, set(names)
        kept = {name: limit for name, limit in state.limits.items() if name not in gone}
        self._publisher.publish(replace(state, limits=kept))

    def announce_own_keys(self, keys: Iterable[OwnKeysRecord]) -> None:
        """All keys of providers that projects brought."""
        brought = {each.project_id: each for each in keys}
        self._publisher.publish(replace(self._publisher.state, own_keys=brought))

    def announce_residency(self, policies: Iterable[ResidencyRecord]) -> None:
        """All policies that there are."""
        told = {each.id: each for each in policies}
        self._publisher.publish(replace(self._publisher.state, residency=told))

    @property
    def sinks(self) -> Mapping[str, SinkRecord]:
        return self._publisher.state.sinks

    def announce_sinks(self, sinks: Mapping[str, SinkRecord]) -> None:
        self._publisher.publish(replace(self._publisher.state, sinks=sinks))

    def announce_caches(self, wishes: Iterable[CacheRecord]) -> None:
        """All that projects want of the cache of answers."""
        told = {each.project_id: each for each in wishes}
        self._publisher.publish(replace(self._publisher.state, caches=told))

    def announce_guardrails(self, guardrails: Iterable[GuardrailRecord]) -> None:
        """All that there are."""
        told = {each.name: each for each in guardrails}
        self._publisher.publish(replace(self._publisher.state, guardrails=told))

    @property
    def guardrails(self) -> Mapping[str, GuardrailRecord]:
        return self._publisher.state.guardrails

    def targets(self) -> Iterator[tuple[str, Labels]]:
        """Whoever may answer some model, by name, with its labels."""
        for offer in self._offers.values():
            own = [replica for replica in self._replicas if answers(offer, replica.model)]
            if not offer.targets and not own:
                yield f"a replica of {offer.name}", self.installation
            for replica in own:
                yield replica.id, _upstream(replica, self.installation)
            for target in offer.targets:
                if target.upstream in self._endpoints:
                    yield target.upstream, self._endpoints[target.upstream]

    def announce_prices(self, book: Published) -> None:
        """All versions that are in force or will be."""
        self._book = book
        self.announce_models(self._replicas)
        self.announce_aliases(self._aliases)

    def announce_aliases(self, aliases: Sequence[AliasRecord]) -> None:
        """All that are in force."""
        self._aliases = aliases
        prices = self._book.prices
        told = {each.name: replace_record(each, prices=prices.get(each.name, ())) for each in aliases}
        self._publisher.publish(replace(self._publisher.state, aliases=told))

    def announce_spends(self, spends: Iterable[SpendRecord], shipped: Mapping[str, int]) -> None:
        """What is spent of each budget, as far as each gateway's journal has come in."""
        state = self._publisher.state
        told = {spend.name: spend for spend in spends}
        if told or state.spends:
            self._publisher.publish(replace(state, spends=told, shipped={**state.shipped, **shipped}))

    def announce_models(self, replicas: Sequence[Replica]) -> None:
        self._replicas = replicas
        upstreams = self._endpoints | {replica.id: _upstream(replica, self.installation) for replica in replicas}
        offers = {**{replica.model: Offer(replica.model) for replica in replicas}, **self._offers}
        default = next(iter(self._offers), None) or next(iter(offers), None)
        models = {
            name: self._model(offer, replicas, self._dates.setdefault(name, int(time.time())), default == name)
            for name, offer in offers.items()
        }
        self._publisher.publish(replace(self._publisher.state, models=models, upstreams=upstreams))

    def _model(self, offer: Offer, replicas: Sequence[Replica], created: int, default: bool) -> ModelRecord:
        """What the file prefers comes first, then the replicas. Facts are those of the smallest replica that tells."""
        costs, prices = self._book.costs, self._book.prices.get(offer.name, ())
        if not offer.targets:
            prices = (FREE, *prices)  # what a model of ours costs while nobody says otherwise
        own = [replica for replica in replicas if answers(offer, replica.model)]
        lengths = [replica.context_length for replica in own if replica.context_length]
        outputs = [replica.max_output for replica in own if replica.max_output]
        return ModelRecord(
            name=offer.name,
            created=created,
            targets=(
                *(_priced(target, costs.get(f"{target.upstream}/{target.model}", ())) for target in offer.targets),
                *(TargetRecord(replica.id, offer.name, costs.get(f"local/{offer.name}", ())) for replica in own),
            ),
            limits=offer.limits,
            policy=offer.policy,
            prices=prices,
            context_length=min(lengths, default=offer.context_length),
            max_output=min(outputs, default=offer.max_output),
            capabilities=next((replica.capabilities for replica in own if replica.capabilities), offer.capabilities),
            default=default,
        )


def _priced(target: TargetRecord, costs: tuple[PriceRecord, ...]) -> TargetRecord:
    return replace_record(target, costs=costs)


def _upstream(replica: Replica, installation: Stated) -> UpstreamRecord:
    """What its worker does not state is as the installation's."""
    where = placed(replica, installation)
    return UpstreamRecord(
        id=replica.id,
        provider=replica.provider,
        protocols=replica.protocols,
        base_url=replica.base_url,
        local=True,
        state=replica.state,
        reason=replica.reason,
        quirks=replica.quirks,
        region=where.region,
        jurisdiction=where.jurisdiction,
        retention=installation.retention if replica.retention is None else replica.retention,
        trains=installation.trains if replica.trains is None else replica.trains,
    )
