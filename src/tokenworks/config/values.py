"""Checks of single values. Each takes what TOML holds and returns what a record holds, or raises `Bad` with the reason
and the remedy in one phrase; the caller knows the key and the line."""

import math
import re
from collections.abc import Callable
from decimal import Context, Inexact, InvalidOperation, Overflow, localcontext
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tokenworks.core.money import price_to_nano

T = TypeVar("T")
Check = Callable[[Any], T]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MODEL = re.compile(r"[^\s\x00-\x1f\x7f/]+(?:/[^\s\x00-\x1f\x7f/]+)*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MOST = 1000
DAY = 86_400
MAX_USD = 1_000_000
TYPES = {str: "a string", bool: "a boolean", int: "an integer", float: "a number", list: "an array", dict: "a table"}


class Bad(Exception):
    """A value that cannot be used, and why."""


class Number(float):
    """A TOML float that keeps its text, because money is parsed from decimals."""

    def __new__(cls, text: str) -> "Number":
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str


def type_name(value: object) -> str:
    return next((name for kind, name in TYPES.items() if isinstance(value, kind)), "a date or time")


def string(value: Any) -> str:
    if not isinstance(value, str):
        raise Bad(f"must be a string, not {type_name(value)}; write it in quotes")
    if not value or not value.isprintable() or value != value.strip():
        raise Bad("must be text without control characters or spaces at its ends; correct it")
    return value


def names(value: Any) -> list[str]:
    """One name or several; a record always holds several."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise Bad(f'must be a name or an array of names, not {type_name(value)}; write ["..."]')
    return [string(item) for item in value]


def words(value: Any) -> tuple[str, ...]:
    return tuple(names(value))


def duration(value: Any) -> int:
    """Seconds, or days or hours as "30d" and "24h"."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,6})([dh])", value)):
        return int(match[1]) * (DAY if match[2] == "d" else 3600)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Bad('must be seconds, or days or hours such as "30d" and "24h"; 0 says that nothing is kept')
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Bad(f"must be true or false, not {type_name(value)}; write it without quotes")
    return value


def model_name(value: Any) -> str:
    name = string(value)
    if not MODEL.fullmatch(name) or len(name) > 256:
        raise Bad(f"{name!r} is no model name; up to 256 characters without spaces, '/' only between others")
    return name


def plain_name(value: Any) -> str:
    if not NAME.fullmatch(string(value)):
        raise Bad(f"{value!r} is no name for it; use letters, digits, '.', '_' and '-'")
    return str(value)


def target(value: Any) -> tuple[str, str]:
    provider, slash, model = string(value).partition("/")
    if not slash or not NAME.fullmatch(provider) or not MODEL.fullmatch(model):
        raise Bad(f'{value!r} is no target; write "provider/model"')
    return provider, model


def seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Bad(f"must be a number of seconds, not {type_name(value)}; write it without quotes")
    if not 0 < value <= DAY:
        raise Bad(f"{_shown(value)} seconds is out of range; write a number above 0 and up to {DAY}")
    return float(value)


def price(value: Any) -> int:
    """USD for what the rate is stated for (core.price.STATED) -> nano-dollars, exactly."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Bad(f"must be a number of USD, not {type_name(value)}; write it without quotes")
    if not 0 <= value <= MAX_USD:
        raise Bad(f"{_shown(value)} USD is out of range; write 0 to {MAX_USD} USD")
    text = value.text if isinstance(value, Number) else str(value)
    try:
        # The default context would round a long fraction in silence.
        with localcontext(Context(prec=40, traps=[Inexact, InvalidOperation, Overflow])):
            return price_to_nano(text)
    except (ValueError, ArithmeticError):
        raise Bad(f"{text} USD is finer than a nano-dollar; write at most 9 decimal places") from None


def url(value: Any) -> str:
    """`http(s)://host[:port][/path]` or `unix:/path/to.sock[|/path]`, returned without a slash at its end."""
    text = string(value)
    if text.startswith("unix:/") and " " not in text:
        return text.rstrip("/")
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or re.search(r"\s", text):
        raise Bad("is no URL; write http://host:port/path, https://host/path or unix:/path/to.sock")
    if parts.username is not None or parts.password is not None:
        raise Bad("must not hold credentials, which would end up in logs; put them in api_key")
    if "?" in text or "#" in text:
        raise Bad("must not have a query or a fragment; paths are appended to it")
    return text.rstrip("/")


def credential(value: Any) -> str:
    """`env:NAME`, `env:A:B` for the values of both, `file:/path` or the secret itself, which no message may repeat."""
    if not isinstance(value, str):
        raise Bad(f'must be a string, not {type_name(value)}; write "env:NAME", "file:/path" or the key')
    scheme, colon, rest = value.partition(":")
    if colon and scheme == "env" and not all(VARIABLE.fullmatch(name) for name in rest.split(":")):
        raise Bad('names no environment variable after "env:"; write "env:NAME"')
    if colon and scheme == "file" and not rest.startswith("/"):
        raise Bad('names no absolute path after "file:"; write "file:/path"')
    if "${" in value:
        raise Bad('is not interpolated; write "env:NAME" instead of "${NAME}"')
    if not value or not value.isprintable() or (" " in value and scheme != "file"):
        raise Bad('is empty or holds spaces or control characters; write "env:NAME", "file:/path" or the key')
    return value


def count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
        raise Bad(f"must be a whole number from 0 to {MOST}; 0 turns it off")
    return value


def tokens(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Bad("must be a whole number of tokens above 0")
    return value


def percentile(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise Bad("must be a percentile from 0 to below 1, such as 0.95; 0 turns it off")
    return float(value)


def share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Bad("must be a share from 0 to 1, such as 0.1 for a tenth; 0 gives it away")
    return float(value)


def temperature(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2:
        raise Bad("must be a temperature from 0 to 2")
    return float(value)


def port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise Bad("must be an integer from 0 to 65535; 0 takes any free port")
    return value


def one_of(known: frozenset[str], say: Callable[[str], str]) -> Check[str]:
    def check(value: Any) -> str:
        if string(value) not in known:
            raise Bad(f"{value!r} is unknown; {say(value)}")
        return str(value)

    return check


def plain(value: Any) -> Any:
    """A value that JSON can carry too: engines' options travel as JSON."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Bad(f"{float(value)} is no finite number; correct it")
        return float(value)
    if isinstance(value, str | bool | int):
        return value
    raise Bad("is a date or time, which no option takes; write it as a string")


def _shown(value: float) -> str:
    return value.text if isinstance(value, Number) else f"{value:.6g}" if abs(value) < 1e300 else "that many"
