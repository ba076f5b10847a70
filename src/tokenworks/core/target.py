"""Where a request may go: one upstream under one of its own model names, and how long to wait for it."""

from dataclasses import dataclass

from tokenworks.core.price import Tariff
from tokenworks.core.routing import ORDER


@dataclass(frozen=True, slots=True)
class RouteLimits:
    """Seconds. `first_token` counts from the request's last byte, `idle` between events, `total` over all."""

    connect: float = 2.0
    first_token: float = 60.0
    idle: float = 30.0
    total: float = 600.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of a request when an upstream fails.

    `retries`: attempts on targets that were tried before, beyond one on each. `hedge`: the percentile (0.95) of an
    upstream's time to first token after which the next target is asked too; 0: never. `on_stream_loss`: how an answer
    that broke in its middle goes on, resume | restart | error. `breaker`: failures in a row that open an upstream's
    circuit; 0: no request learns from what happened to others. `stream_whole`: whole answers are asked for as streams
    where another target could rescue them, so that silence is noticed. `sort`: how targets are ordered (core.routing).

    `cache`: seconds for which an answer is given again to the same request; 0: never. `cache_max`: so many a project or
    a request may ask for, if that is more. `cache_price`: the share of its first price that such an answer costs.

    `semantic_model`: the model whose embeddings compare last messages, where an answer to a similar one may be given,
    too; "": nowhere. `semantic_threshold`: the cosine similarity from which they are, unless the project or the caller
    wants another; 0: only who wants it. `semantic_temperature`: requests at a higher one get no such answers.
    """

    retries: int = 2
    hedge: float = 0.95
    on_stream_loss: str = "resume"
    breaker: int = 5
    stream_whole: bool = True
    sort: str = ORDER
    cache: int = 0
    cache_max: int = 0
    cache_price: float = 0.0
    semantic_model: str = ""
    semantic_threshold: float = 0.0
    semantic_temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """`upstream` is an id in the snapshot; `model` is the name that upstream knows; `price` is what the caller pays,
    `cost` what we pay. `window` is how many tokens of a prompt and its answer it takes; None: nobody told."""

    upstream: str
    model: str
    limits: RouteLimits
    price: Tariff
    cost: Tariff = Tariff()
    window: int | None = None
