"""Reads a price file in litellm's format: an object of models, each with prices in USD by keys such as
`input_cost_per_token_above_272k_tokens_batches`. What is not understood is told by name, never guessed. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

from tokenworks.control.pricing.entries import Terms, factors_of
from tokenworks.core.errors import InvalidRequest
from tokenworks.core.price import BATCH, unclear
from tokenworks.snapshot.records import WhenRecord

_PER_TOKEN = {
    "input_cost_per_token": "input",
    "input_cost_per_audio_token": "input_audio",
    "input_cost_per_image_token": "input_image",
    "input_cost_per_token_cache_hit": "cached_input",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "cache_creation_input_token_cost_above_12hr": "cache_write_1h",
    "output_cost_per_token": "output",
    "output_cost_per_reasoning_token": "reasoning",
    "output_cost_per_audio_token": "output_audio",
    "output_cost_per_image_token": "output_image",
}
_PER_UNIT = {
    "input_cost_per_request": ("priced_requests", None, 1),
    "input_cost_per_query": ("priced_requests", {"rerank"}, 1),
    "input_cost_per_second": ("audio_ms", {"audio_transcription"}, 1000),
    "input_cost_per_audio_per_second": ("audio_ms", None, 1000),
    "input_cost_per_image": ("images", None, 1),
}
"""Kind, the modes in which the key means that (None: all), and how many of our units are one of theirs."""
_WITHOUT_OUTPUT = frozenset({"embedding", "rerank", "moderation", "audio_transcription"})
_TIERS = {"batches": BATCH, "flex": "flex", "priority": "priority", "ultrafast": "ultrafast", "balanced": "balanced"}
_KEY = re.compile(rf"(?P<base>.+?)(?:_above_(?P<thousands>\d+)k_tokens)?(?:_(?P<tier>{'|'.join(_TIERS)}))?")
_REGION = re.compile(r"regional_processing_uplift_multiplier_(?P<region>[a-z]+)")
_PRICELIKE = re.compile(r"cost|pric|multiplier|provider_specific_entry")
_NANO_PER_MILLION = Decimal(10) ** 15
"""USD for one unit -> nano-dollars for a million."""


@dataclass(slots=True)
class Reading:
    """One model of the file. `terms` None: it cannot be used, for `problem`. `unknown` names keys that say something
    of prices and were not understood."""

    terms: Terms | None = None
    problem: str = ""
    unknown: list[str] = field(default_factory=list)


def check(document: object) -> dict[str, dict[str, Any]]:
    """InvalidRequest naming what is malformed: a broken file changes nothing."""
    if not isinstance(document, dict) or not document:
        raise InvalidRequest("document: must be an object of models, each with its prices.", param="document")
    for name, entry in document.items():
        if not isinstance(entry, dict):
            raise InvalidRequest(f"document: {name!r} is no object of prices.", param="document")
    return document


def read(name: str, entry: Mapping[str, Any]) -> Reading:
    """InvalidRequest when a price is no number, or negative."""
    reading = Reading()
    rates: dict[str, int] = {}
    cells: dict[tuple[str, int], dict[str, int]] = {}
    regions: list[WhenRecord] = []
    mode = entry.get("mode")
    for key, value in entry.items():
        if key == "tiered_pricing":
            reading.unknown += _tiers(name, value, rates, cells)
        elif region := _REGION.fullmatch(key):
            factor = _decimal(name, key, value).as_integer_ratio()
            kinds = dict.fromkeys(("input", "output", "priced_requests", "audio_ms", "images"), factor)
            regions.append(WhenRecord(kinds, region=region["region"]))
        elif (found := _understood(key, mode)) is not None:
            kind, tier, above, units = found
            rate = _rate(name, key, value, units)
            target = cells.setdefault((tier, above), {}) if tier or above else rates
            if target.setdefault(kind, rate) != rate:
                reading.unknown.append(key)
        elif _PRICELIKE.search(key) and value not in (0, None):
            reading.unknown.append(key)
    if "input" in rates and mode in _WITHOUT_OUTPUT:
        rates.setdefault("output", 0)
    if problem := unclear(rates):
        reading.problem = problem
        return reading
    try:
        when = tuple(
            WhenRecord(factors_of(rates, cell, name), tier, above) for (tier, above), cell in sorted(cells.items())
        )
    except InvalidRequest as error:
        reading.problem = error.message
        return reading
    reading.terms = Terms(rates, (*when, *regions))
    return reading


def _understood(key: str, mode: object) -> tuple[str, str, int, int] | None:
    """(kind, tier, threshold, our units in one of theirs) of a key."""
    parts = _KEY.fullmatch(key)
    if parts is None:
        return None
    tier, above = _TIERS.get(parts["tier"] or "", ""), int(parts["thousands"] or 0) * 1000
    base = parts["base"]
    if base in _PER_TOKEN:
        return _PER_TOKEN[base], tier, above, 1
    if base in _PER_UNIT:
        kind, modes, units = _PER_UNIT[base]
        if modes is None or mode in modes:
            return kind, tier, above, units
    return None


def _tiers(name: str, value: object, rates: dict[str, int], cells: dict[tuple[str, int], dict[str, int]]) -> list[str]:
    """`tiered_pricing`: a list of rates, each for prompts of a range of tokens. Returns what was not understood."""
    if not isinstance(value, list) or not all(isinstance(tier, dict) for tier in value):
        raise InvalidRequest(f"document: {name!r}: tiered_pricing is no list of rates.", param="document")
    spans = [tier.get("range") for tier in value]
    if not all(isinstance(span, list) and span for span in spans):
        return ["tiered_pricing"]
    unknown: list[str] = []
    for tier, span in zip(value, spans, strict=True):
        above = int(_decimal(name, "range", span[0]))
        target = cells.setdefault(("", above), {}) if above else rates
        for key, price in tier.items():
            if key in _PER_TOKEN:
                target[_PER_TOKEN[key]] = _rate(name, key, price, 1)
            elif key != "range":
                unknown.append(f"tiered_pricing.{key}")
    return unknown


def _rate(name: str, key: str, value: object, units: int) -> int:
    """Rounded to a nano-dollar for a million: published prices that are no decimals differ beyond that."""
    exact = _decimal(name, key, value) * _NANO_PER_MILLION / units
    return int(exact.to_integral_value(ROUND_HALF_UP))


def _decimal(name: str, key: str, value: object) -> Decimal:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = Decimal(str(value))
    except (InvalidOperation, ValueError):
        raise InvalidRequest(
            f"document: {name!r}: {key} = {value!r} is no number; nothing was changed.", param="document"
        ) from None
    if not number.is_finite() or not 0 <= number <= 10**9:
        raise InvalidRequest(
            f"document: {name!r}: {key} = {value!r} is out of range; nothing was changed.", param="document"
        )
    return number
