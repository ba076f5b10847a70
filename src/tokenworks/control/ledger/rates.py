"""Prices by the version that usage was charged with."""

from sqlalchemy.engine import Connection

from tokenworks.control.ledger.lines import Rates
from tokenworks.control.storage import prices
from tokenworks.core.price import Price


def rates_of(connection: Connection) -> Rates:
    """Out of the price book, which keeps every version that was ever in force."""
    known: dict[str, Price | None] = {}

    def rate(version: str) -> Price | None:
        if version not in known:
            known[version] = prices.version(connection, version)
        return known[version]

    return rate
