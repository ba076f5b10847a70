"""What one request may be tried on."""

import time
from collections.abc import Mapping
from dataclasses import replace

import msgspec

from tokenworks.core.target import Target
from tokenworks.gateway.admission.limits.hold import Hold
from tokenworks.gateway.guardrails.guardrails import Watch
from tokenworks.gateway.metering.attempt import Asked
from tokenworks.snapshot.records import CacheRecord, ModelRecord, OwnKeysRecord, ResidencyRecord, UpstreamRecord


class Route(msgspec.Struct, frozen=True):
    """`targets` in the order in which they are tried. Attempts are numbered from `asked.first_attempt`."""

    asked: Asked
    model: ModelRecord
    targets: list[Target]
    upstreams: Mapping[str, UpstreamRecord]
    hold: Hold
    own_keys: OwnKeysRecord | None = None
    policies: tuple[ResidencyRecord, ...] = ()
    """Which every target in `targets` keeps."""
    uncacheable: bool = False
    """The policies do not allow its answer to be cached."""
    watch: Watch | None = None
    """What guardrails do with the answer."""
    cache: CacheRecord | None = None
    """What its project wants of the cache."""

    def after(self, seconds: float) -> "Route":
        """The same once so much of its total limit is over."""
        if seconds < 0.001:
            return self
        limits = {id(each.limits): replace(each.limits, total=each.limits.total - seconds) for each in self.targets}
        return msgspec.structs.replace(
            self, targets=[replace(each, limits=limits[id(each.limits)]) for each in self.targets]
        )

    def within(self, patience: float | None) -> "Route":
        """The same, whose total limit is no longer than its caller waits from its arrival on."""
        total = self.targets[0].limits.total
        if patience is None:
            return self
        left = round(patience - (time.perf_counter_ns() - self.asked.arrived) / 1e9, 3)
        return self if left >= total else self.after(total - left)

    def brought(self, upstream: str) -> OwnKeysRecord | None:
        """The project's own keys, where it has any for this upstream."""
        own = self.own_keys
        return own if own is not None and own.of(upstream) else None
