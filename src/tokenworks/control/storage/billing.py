"""How an organization pays, and what an invoice calls it."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from tokenworks.control.storage.ledger import INSERTS
from tokenworks.control.storage.ledger_tables import billing_profiles, invoices

POSTPAID, PREPAID = "postpaid", "prepaid"


@dataclass(frozen=True, slots=True)
class Profile:
    organization_id: str
    mode: str = POSTPAID
    """prepaid: what it may still spend is a hard budget, enforced by the gateways."""
    tax_basis_points: int = 0
    """1900 is 19 %."""
    address: dict[str, Any] = field(default_factory=dict)
    customer: str | None = None
    """Its id at the payment provider."""


def profile(connection: Connection, organization_id: str) -> Profile:
    """The default one when nobody has set any."""
    query = select(billing_profiles).where(billing_profiles.c.organization_id == organization_id)
    row = connection.execute(query).first()
    return Profile(organization_id) if row is None else Profile(*row)


def put(connection: Connection, wanted: Profile) -> None:
    values = {
        "mode": wanted.mode,
        "tax_basis_points": wanted.tax_basis_points,
        "address": wanted.address,
        "customer": wanted.customer,
    }
    insert = INSERTS[connection.dialect.name](billing_profiles).values(organization_id=wanted.organization_id, **values)
    connection.execute(insert.on_conflict_do_update(index_elements=["organization_id"], set_=values))


def of_customer(connection: Connection, customer: str) -> str | None:
    """The organization that the payment provider knows by this id."""
    query = select(billing_profiles.c.organization_id).where(billing_profiles.c.customer == customer)
    return connection.execute(query).scalar()


def invoiced(connection: Connection, organization_id: str) -> tuple[int, int]:
    """The charges and the refunds that are on invoices already."""
    sums = select(func.sum(invoices.c.charged), func.sum(invoices.c.refunded)).where(
        invoices.c.organization_id == organization_id, invoices.c.kind == "invoice"
    )
    charged, refunded = connection.execute(sums).one()
    return int(charged or 0), int(refunded or 0)
