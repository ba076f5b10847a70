"""Where a request may go: one upstream under one of its own model names, and how long to wait for it."""

from dataclasses import dataclass

from tokenworks.core.price import Tariff


@dataclass(frozen=True, slots=True)
class RouteLimits:
    """Seconds. `first_token` counts from the request's last byte, `idle` between events, `total` over all."""

    connect: float = 2.0
    first_token: float = 60.0
    idle: float = 30.0
    total: float = 600.0


@dataclass(frozen=True, slots=True)
class Target:
    """`upstream` is an id in the snapshot; `model` is the name that upstream knows; `price` is what the caller pays,
    `cost` what we pay."""

    upstream: str
    model: str
    limits: RouteLimits
    price: Tariff
    cost: Tariff = Tariff()
