"""What the ledger needs of a payment provider. Amounts are whole cents of a US dollar."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

NANO_PER_CENT = 10_000_000

EventKind = Literal["paid", "waiting", "expired", "failed", "refund_succeeded", "refund_failed", "refund_pending", ""]


@dataclass(frozen=True, slots=True)
class Wish:
    """A top-up that is to be paid. `payment_id` is ours, and makes asking again harmless."""

    payment_id: str
    organization_id: str
    cents: int
    success_url: str
    cancel_url: str
    customer: str | None = None


@dataclass(frozen=True, slots=True)
class Checkout:
    """Where the customer pays. `id` is the provider's."""

    id: str
    url: str


@dataclass(frozen=True, slots=True)
class Event:
    """What the provider tells. `kind` "" is none of our business; `reference` is what we gave along with the payment
    or the refund."""

    id: str
    name: str
    kind: EventKind
    organization_id: str = ""
    reference: str = ""
    cents: int = 0
    object_id: str = ""
    intent: str | None = None
    customer: str | None = None


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """Usage of a customer; sent again under the same id it counts once."""

    id: str
    customer: str
    cents: int
    at: int


class PaymentRefused(Exception):
    """The provider will not do it; the message is its own."""


class PaymentUnavailable(Exception):
    """Nobody knows whether it was done; asking again with the same id finds out."""


class BadSignature(Exception):
    """This did not come from the provider, or not now."""


class PaymentProvider(Protocol):
    """Every call raises PaymentRefused or PaymentUnavailable when it was not done."""

    meters: bool
    """Whether usage is to be reported."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Around the life of the process."""
        ...

    async def checkout(self, wish: Wish) -> Checkout: ...

    async def refund(self, intent: str, cents: int, organization_id: str, reference: str) -> EventKind:
        """How it stands: refund_succeeded | refund_pending | refund_failed. `reference` makes it harmless to repeat."""
        ...

    async def report(self, event: MeterEvent) -> None: ...

    def event(self, headers: Mapping[str, str], body: bytes, now: int) -> Event:
        """What a webhook says, once its signature is checked; otherwise BadSignature."""
        ...
