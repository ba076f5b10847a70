"""What in the price book should be looked at. Pure."""

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import BaseModel, Field

from tokenworks.control.pricing import timeline
from tokenworks.control.pricing.entries import PRICE, Entry, Subject, stated_rates
from tokenworks.core.price import STATED, Price, uncounted
from tokenworks.snapshot.records import ModelRecord
from tokenworks.snapshot.state import State


class Finding(BaseModel):
    """`error`: requests will be refused. `warning`: money may be lost."""

    severity: Literal["error", "warning"]
    subject: str
    code: Literal["no_price", "price_ends", "no_cost", "below_cost", "not_counted"]
    message: str
    at: int | None = Field(default=None, description="Unix seconds from when on.")


def findings(state: State, entries: Iterable[Entry], now: int) -> list[Finding]:
    known = list(entries)
    return [finding for model in state.models.values() for finding in _about(model, state, known, now)]


def _about(model: ModelRecord, state: State, entries: list[Entry], now: int) -> Iterator[Finding]:
    name = model.name
    foreign = [target for target in model.targets if not state.upstreams[target.upstream].local]
    if foreign:
        versions = [entry for entry in entries if entry.subject == Subject(PRICE, name)]
        at = timeline.gap(versions, now)
        if at is not None and at <= now:
            yield Finding(severity="error", subject=name, code="no_price", message="has no price: it is not answered")
        elif at is not None:
            yield Finding(
                severity="error", subject=name, code="price_ends", message="its price ends and none follows", at=at
            )
    price = model.tariff("", "").at(now)
    if foreign and price is not None and (problem := uncounted(price.rates)):
        yield Finding(severity="error", subject=name, code="not_counted", message=f"its price {problem}")
    for target in foreign:
        subject = f"{target.upstream}/{target.model}"
        cost = target.cost.at(now)
        if cost is None:
            yield Finding(
                severity="warning", subject=subject, code="no_cost", message="nobody told what it costs: margins of "
                f"{name} are not known"
            )  # fmt: skip
        elif price is not None and (below := _below(price, cost)):
            yield Finding(
                severity="warning", subject=subject, code="below_cost", message=f"{name} is sold below cost: {below}"
            )


def _below(price: Price, cost: Price) -> str:
    stated = price.rates.keys() | cost.rates.keys()
    kinds = [kind for kind, _ in STATED.values() if kind in stated and price.rate(kind) < cost.rate(kind)]
    return ", ".join(stated_rates(dict.fromkeys(kinds, 0)))
