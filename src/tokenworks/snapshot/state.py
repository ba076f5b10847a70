"""The state that the snapshot stream describes, and the arithmetic of full states and deltas. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from tokenworks.core.aliases.records import Alias
from tokenworks.snapshot.framing import FrameError
from tokenworks.snapshot.records import (
    VERSION,
    AliasRecord,
    Beat,
    CacheRecord,
    Delta,
    Frame,
    Full,
    GuardrailRecord,
    KeyRecord,
    LimitRecord,
    ModelRecord,
    OwnKeysRecord,
    ResidencyRecord,
    SinkRecord,
    SpendRecord,
    UpstreamRecord,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class State:
    """One revision, never changed after it was made: a request that holds one sees one consistent world."""

    revision: int = 0
    keys: Mapping[str, KeyRecord] = field(default_factory=dict)
    """By digest."""
    models: Mapping[str, ModelRecord] = field(default_factory=dict)
    """By public name."""
    upstreams: Mapping[str, UpstreamRecord] = field(default_factory=dict)
    """By id."""
    limits: Mapping[str, LimitRecord] = field(default_factory=dict)
    """By `LimitRecord.name`."""
    spends: Mapping[str, SpendRecord] = field(default_factory=dict)
    """By `LimitRecord.name`."""
    own_keys: Mapping[str, OwnKeysRecord] = field(default_factory=dict)
    """By id of the project."""
    residency: Mapping[str, ResidencyRecord] = field(default_factory=dict)
    """By id of the project or organization."""
    sinks: Mapping[str, SinkRecord] = field(default_factory=dict)
    """By name."""
    aliases: Mapping[str, AliasRecord] = field(default_factory=dict)
    """By public name."""
    guardrails: Mapping[str, GuardrailRecord] = field(default_factory=dict)
    """By name."""
    caches: Mapping[str, CacheRecord] = field(default_factory=dict)
    """By id of the project."""
    shipped: Mapping[str, int] = field(default_factory=dict)
    """By gateway id; see `records.Full.shipped`."""

    @classmethod
    def of(
        cls,
        *,
        revision: int = 0,
        keys: Iterable[KeyRecord] = (),
        models: Iterable[ModelRecord] = (),
        upstreams: Iterable[UpstreamRecord] = (),
        limits: Iterable[LimitRecord] = (),
        spends: Iterable[SpendRecord] = (),
        own_keys: Iterable[OwnKeysRecord] = (),
        shipped: Mapping[str, int] = MappingProxyType({}),
    ) -> "State":
        return cls(
            revision,
            {key.digest: key for key in keys},
            {model.name: model for model in models},
            {upstream.id: upstream for upstream in upstreams},
            {limit.name: limit for limit in limits},
            {spend.name: spend for spend in spends},
            {keys.project_id: keys for keys in own_keys},
            shipped=dict(shipped),
        )

    def policies(self, organization_id: str, project_id: str) -> tuple[ResidencyRecord, ...]:
        """What holds for a project's requests: its organization's and its own, both."""
        if not self.residency:
            return ()
        found = (self.residency.get(organization_id), self.residency.get(project_id))
        return tuple(policy for policy in found if policy is not None)

    def alias(self, name: str) -> Alias | None:
        record = self.aliases.get(name)
        return None if record is None else record.alias

    def guardrails_of(self, key_id: str, project_id: str, model: str) -> tuple[GuardrailRecord, ...]:
        """Those that look at a request, in the order in which they do."""
        if not self.guardrails:
            return ()
        found = [
            each
            for each in self.guardrails.values()
            if each.everybody or key_id in each.keys or project_id in each.projects or model in each.models
        ]
        return tuple(sorted(found, key=lambda each: each.position))

    def full(self) -> Full:
        return Full(
            VERSION,
            self.revision,
            tuple(self.keys.values()),
            tuple(self.models.values()),
            tuple(self.upstreams.values()),
            tuple(self.limits.values()),
            tuple(self.spends.values()),
            tuple(self.own_keys.values()),
            tuple(self.residency.values()),
            tuple(self.sinks.values()),
            tuple(self.aliases.values()),
            tuple(self.guardrails.values()),
            tuple(self.caches.values()),
            dict(self.shipped),
        )

    def apply(self, frame: Frame) -> "State":
        """The state after `frame`. FrameError when it is of a newer version or out of order."""
        if isinstance(frame, Full):
            if frame.version != VERSION:
                raise FrameError(
                    f"snapshot version {frame.version}, this gateway reads {VERSION}: upgrade the older one"
                )
            state = State.of(
                revision=frame.revision,
                keys=frame.keys,
                models=frame.models,
                upstreams=frame.upstreams,
                limits=frame.limits,
                spends=frame.spends,
                own_keys=frame.own_keys,
                shipped=frame.shipped,
            )
            return replace(
                state,
                residency={policy.id: policy for policy in frame.residency},
                sinks={sink.name: sink for sink in frame.sinks},
                aliases={alias.name: alias for alias in frame.aliases},
                guardrails={guardrail.name: guardrail for guardrail in frame.guardrails},
                caches={wish.project_id: wish for wish in frame.caches},
            )
        if isinstance(frame, Beat):
            if frame.revision != self.revision:
                raise FrameError(
                    f"control is at revision {frame.revision}, we are at {self.revision}: a change was missed"
                )
            return self
        if frame.revision <= self.revision:
            raise FrameError(f"revision {frame.revision} came after {self.revision}: the stream is out of order")
        return State(
            frame.revision,
            _merge(self.keys, {key.digest: key for key in frame.keys}, frame.removed_keys),
            _merge(self.models, {model.name: model for model in frame.models}, frame.removed_models),
            _merge(self.upstreams, {upstream.id: upstream for upstream in frame.upstreams}, frame.removed_upstreams),
            _merge(self.limits, {limit.name: limit for limit in frame.limits}, frame.removed_limits),
            _merge(self.spends, {spend.name: spend for spend in frame.spends}, frame.removed_spends),
            _merge(self.own_keys, {keys.project_id: keys for keys in frame.own_keys}, frame.removed_own_keys),
            _merge(self.residency, {policy.id: policy for policy in frame.residency}, frame.removed_residency),
            _merge(self.sinks, {sink.name: sink for sink in frame.sinks}, frame.removed_sinks),
            _merge(self.aliases, {alias.name: alias for alias in frame.aliases}, frame.removed_aliases),
            _merge(self.guardrails, {each.name: each for each in frame.guardrails}, frame.removed_guardrails),
            _merge(self.caches, {wish.project_id: wish for wish in frame.caches}, frame.removed_caches),
            _merge(self.shipped, frame.shipped, ()),
        )


def diff(old: State, new: State) -> Delta:
    """What brings `old` to `new`; `is_empty` tells whether that is nothing but the revision."""
    return Delta(
        revision=new.revision,
        keys=_changed(old.keys, new.keys),
        models=_changed(old.models, new.models),
        upstreams=_changed(old.upstreams, new.upstreams),
        limits=_changed(old.limits, new.limits),
        spends=_changed(old.spends, new.spends),
        own_keys=_changed(old.own_keys, new.own_keys),
        residency=_changed(old.residency, new.residency),
        sinks=_changed(old.sinks, new.sinks),
        aliases=_changed(old.aliases, new.aliases),
        guardrails=_changed(old.guardrails, new.guardrails),
        caches=_changed(old.caches, new.caches),
        shipped={} if old.shipped is new.shipped else dict(new.shipped.items() - old.shipped.items()),
        removed_keys=_removed(old.keys, new.keys),
        removed_models=_removed(old.models, new.models),
        removed_upstreams=_removed(old.upstreams, new.upstreams),
        removed_limits=_removed(old.limits, new.limits),
        removed_spends=_removed(old.spends, new.spends),
        removed_own_keys=_removed(old.own_keys, new.own_keys),
        removed_residency=_removed(old.residency, new.residency),
        removed_sinks=_removed(old.sinks, new.sinks),
        removed_aliases=_removed(old.aliases, new.aliases),
        removed_guardrails=_removed(old.guardrails, new.guardrails),
        removed_caches=_removed(old.caches, new.caches),
    )


def is_empty(delta: Delta) -> bool:
    return delta == Delta(delta.revision)


def _merge(old: Mapping[str, T], changed: Mapping[str, T], removed: Iterable[str]) -> Mapping[str, T]:
    if not changed and not removed:
        return old
    merged = {**old, **changed}
    for name in removed:
        merged.pop(name, None)
    return merged


def _changed(old: Mapping[str, T], new: Mapping[str, T]) -> tuple[T, ...]:
    return () if old is new else tuple(record for name, record in new.items() if old.get(name) != record)


def _removed(old: Mapping[str, T], new: Mapping[str, T]) -> tuple[str, ...]:
    return () if old is new else tuple(name for name in old if name not in new)
