"""Money in integers.

One unit is a nano-dollar (1e-9 USD). A price of 0.15 USD per million tokens is 150 nano-dollars per
token, so every published per-token price is a whole number down to 0.001 USD per million tokens.
Floats never hold money: a price is parsed from its decimal text.
"""

from decimal import Decimal, InvalidOperation

NANO_PER_USD = 1_000_000_000


def usd_to_nano(text: str | int | float | Decimal) -> int:
    """Decimal USD -> nano-dollars. ValueError when it is not a finite decimal or has a fraction of a nano-dollar."""
    try:
        nano = Decimal(str(text)) * NANO_PER_USD
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is not an amount of USD") from error
    if not nano.is_finite() or nano != nano.to_integral_value():
        raise ValueError(f"{text!r} USD is finer than one nano-dollar")
    return int(nano)


def price_to_nano(text: str | int | float | Decimal) -> int:
    """The same for a price, which is never negative; per million tokens it keeps any published price exact."""
    nano = usd_to_nano(text)
    if nano < 0:
        raise ValueError(f"a price cannot be negative: {text!r}")
    return nano


def nano_to_usd(nano: int) -> str:
    """Nano-dollars -> exact decimal USD text without trailing zeros ("0.00015", "-2.5", "0")."""
    sign, nano = ("-", -nano) if nano < 0 else ("", nano)
    whole, fraction = divmod(nano, NANO_PER_USD)
    digits = f"{fraction:09d}".rstrip("0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"
