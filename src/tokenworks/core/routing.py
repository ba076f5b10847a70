"""What a caller or an operator wants of whoever answers: who may, in which order, and by what they are weighed."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

ORDER, PRICE, LATENCY, THROUGHPUT, BALANCED = "order", "price", "latency", "throughput", "balanced"
SORTS = (ORDER, PRICE, LATENCY, THROUGHPUT, BALANCED)
"""As the operator listed them, or by what one request costs, its time to first token, its tokens/s, or all of it."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """Of one request. What excludes: `only`, `ignore`, `regions`, `zdr`, `deny_data_collection`, `quantizations`,
    `max_price`, `require_parameters`; a label that nobody stated counts as a no. The others only order.

    `models`: public names to try in turn. `order`, `only`, `ignore`: providers. `max_price`: nano-dollars for a
    million units by kind. `max_latency` (seconds to first token) and `min_throughput` (tokens/s): percentile -> bound.
    """

    models: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    allow_fallbacks: bool = True
    sort: str = ""
    max_price: Mapping[str, int] = field(default_factory=dict)
    max_latency: Mapping[float, float] = field(default_factory=dict)
    min_throughput: Mapping[float, float] = field(default_factory=dict)
    require_parameters: bool = False
    deny_data_collection: bool = False
    zdr: bool = False
    quantizations: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()

    @property
    def privacy(self) -> "Preferences | None":
        """What holds for everybody who gets the request, also where nobody waits for his answer. None: nothing."""
        if not (self.zdr or self.deny_data_collection or self.regions):
            return None
        return Preferences(zdr=self.zdr, deny_data_collection=self.deny_data_collection, regions=self.regions)

    @property
    def wishes(self) -> Hashable:
        """The same for requests that want the same of a model's targets."""
        bounds = (self.max_price, self.max_latency, self.min_throughput)
        return (
            self.order,
            self.only,
            self.ignore,
            self.allow_fallbacks,
            self.sort,
            *(tuple(each.items()) for each in bounds),
            self.require_parameters,
            self.deny_data_collection,
            self.zdr,
            self.quantizations,
            self.regions,
        )
