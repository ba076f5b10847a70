"""What one request may be tried on."""

from collections.abc import Mapping
from dataclasses import dataclass

from tokenworks.core.target import Target
from tokenworks.gateway.admission.limits.hold import Hold
from tokenworks.gateway.guardrails.guardrails import Watch
from tokenworks.gateway.metering.attempt import Asked
from tokenworks.snapshot.records import ModelRecord, OwnKeysRecord, ResidencyRecord, UpstreamRecord


@dataclass(frozen=True, slots=True)
class Route:
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

    def brought(self, upstream: str) -> OwnKeysRecord | None:
        """The project's own keys, where it has any for this upstream."""
        own = self.own_keys
        return own if own is not None and own.of(upstream) else None
