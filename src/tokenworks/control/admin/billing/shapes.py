"""What every noun here shares: amounts, whose book it is, idempotency keys."""

import secrets
from typing import Annotated

from fastapi import Header, Query
from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import Actor
from tokenworks.control.admin.organization.shapes import missing
from tokenworks.control.storage import tenants
from tokenworks.core.errors import InvalidRequest
from tokenworks.core.money import nano_to_usd, usd_to_nano

LARGEST = 10**9 * 10**9
"""A billion dollars: what a person could mean."""


def _decimal(text: str) -> str:
    if abs(usd_to_nano(text)) > LARGEST:
        raise ValueError("must be at most 1000000000 USD")
    return text


def _positive(text: str) -> str:
    if usd_to_nano(text) <= 0:
        raise ValueError("must be more than 0")
    return text


SignedUsd = Annotated[
    str, Field(max_length=40, description="Decimal USD, exact to a nano-dollar."), AfterValidator(_decimal)
]
Usd = Annotated[SignedUsd, AfterValidator(_positive)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="Sent again with the same key, the call changes nothing and answers the same.",
    ),
]
OrganizationId = Annotated[str | None, Query(max_length=200, description="Yours when left out.")]


class Money(BaseModel):
    nano_usd: int
    usd: str = Field(description="The same in USD, exact decimal text.")


def money(nano: int) -> Money:
    return Money(nano_usd=nano, usd=nano_to_usd(nano))


def key_of(given: str | None) -> str:
    """What the caller sent cannot meet what we make up ourselves."""
    return f"sent:{given}" if given is not None else f"once:{secrets.token_hex(12)}"


async def book_of(connection: AsyncConnection, actor: Actor, organization_id: str | None) -> str:
    """The organization that is meant. Only the operator may mean another's."""
    wanted = organization_id or actor.organization_id
    if wanted != actor.organization_id and not actor.is_operator:
        raise missing("organization", wanted)
    if await tenants.organization(connection, wanted) is None:
        raise missing("organization", wanted)
    return wanted


def nano(text: str) -> int:
    try:
        return usd_to_nano(text)
    except ValueError as error:
        raise InvalidRequest(f"amount_usd: {error}", param="amount_usd") from error
