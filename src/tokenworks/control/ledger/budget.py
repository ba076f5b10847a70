"""What a prepaid organization may spend, as the hard budget that gateways enforce.

The budget counts from the beginning of time (period `total`), so a charge does not change it: it moves only when money
comes, goes or is given back. Its amount is all charges ever plus what is still spendable.
"""

from sqlalchemy.engine import Connection

from tokenworks.control.ledger.accounts import Account
from tokenworks.control.storage import billing, ledger
from tokenworks.control.storage.billing import Profile
from tokenworks.control.storage.ledger import Balances
from tokenworks.snapshot.records import LimitRecord

BASIS = 10_000


def tax_on(net: int, basis_points: int) -> int:
    """Nano-dollars, half up; of a negative amount, the same with its sign."""
    if net < 0:
        return -tax_on(-net, basis_points)
    return (net * basis_points + BASIS // 2) // BASIS


def spendable(balances: Balances, profile: Profile, invoiced: tuple[int, int]) -> int:
    """The balance, less the tax that is still to come on what was used and on what can be used with it."""
    uninvoiced = balances.charged - invoiced[0] - (balances.owned(Account.REFUNDS) - invoiced[1])
    tax = profile.tax_basis_points
    return (balances.owed(Account.CREDIT) * BASIS - max(uninvoiced, 0) * tax) // (BASIS + tax)


def spendable_of(connection: Connection, organization_id: str) -> int:
    balances, profile = ledger.balances(connection, organization_id), billing.profile(connection, organization_id)
    return spendable(balances, profile, billing.invoiced(connection, organization_id))


def record(organization_id: str, amount: int = 0) -> LimitRecord:
    return LimitRecord("organization", organization_id, None, "spend_nano_usd", amount, period="total", strict=True)


def budget(connection: Connection, organization_id: str) -> LimitRecord | None:
    """None for an organization that pays later."""
    if billing.profile(connection, organization_id).mode != billing.PREPAID:
        return None
    left = spendable_of(connection, organization_id)
    return record(organization_id, ledger.balances(connection, organization_id).charged + max(left, 0))
