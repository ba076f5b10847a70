"""The price file that most people have: what it says is taken exactly, what is not understood is named."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tokenworks.control.pricing.importing import read_all
from tokenworks.control.pricing.price_file import Reading, read
from tokenworks.core.errors import InvalidRequest
from tokenworks.core.price import Price
from tokenworks.snapshot.records import PriceRecord

LONG = {
    "litellm_provider": "openai",
    "mode": "chat",
    "max_input_tokens": 922000,
    "supports_vision": True,
    "input_cost_per_token": 2e-06,
    "input_cost_per_token_batches": 1e-06,
    "input_cost_per_token_flex": 1e-06,
    "input_cost_per_token_priority": 4e-06,
    "input_cost_per_token_above_272k_tokens": 4e-06,
    "input_cost_per_token_above_272k_tokens_batches": 2e-06,
    "input_cost_per_token_above_272k_tokens_priority": 9e-06,
    "output_cost_per_token": 1e-05,
    "output_cost_per_token_above_272k_tokens": 1.5e-05,
    "output_cost_per_token_batches": 5e-06,
    "cache_read_input_token_cost": 2e-07,
    "cache_creation_input_token_cost": 2.5e-06,
    "cache_creation_input_token_cost_above_12hr": 5e-06,
    "regional_processing_uplift_multiplier_eu": 1.1,
    "search_context_cost_per_query": {"search_context_size_high": 0.01},
}


def price(entry: dict[str, Any]) -> Price:
    reading = read("x", entry)
    assert reading.terms is not None, reading.problem
    return PriceRecord(reading.terms.rates, reading.terms.when).price


def usd(text: str) -> Fraction:
    """USD per token, as nano-dollars for a million."""
    return Fraction(text) * 10**15


def test_every_stated_price_is_exact() -> None:
    found = price(LONG)
    assert found.rate("input") == usd("2e-6")
    assert found.rate("input", "batch") == found.rate("input", "flex") == usd("1e-6")
    assert found.rate("input", "batch", 272_001) == usd("2e-6")
    assert found.rate("input", "priority", 272_001) == usd("9e-6")  # as stated, not 4e-6 x 2
    assert found.rate("output", "batch", 272_001) == usd("7.5e-6")  # both factors: nobody states another
    assert found.rate("output", "", 272_001, "eu") == usd("1.65e-5")
    assert found.rate("cached_input", "batch", 272_001) == usd("2e-7")  # follows the input's factor
    assert found.rate("cache_write_1h") == usd("5e-6")
    assert read("x", LONG).unknown == ["search_context_cost_per_query"]


def test_tiers_by_length() -> None:
    tiers = [
        {"range": [0, 256000.0], "input_cost_per_token": 5e-08, "output_cost_per_token": 4e-07},
        {"range": [256000.0, 1e6], "input_cost_per_token": 2.5e-07, "output_cost_per_token": 2e-06},
    ]
    found = price({"mode": "chat", "tiered_pricing": tiers})
    assert found.rate("input", "", 256_000) == usd("5e-8")
    assert found.rate("input", "", 256_001) == usd("2.5e-7")
    assert found.rate("output", "", 256_001) == usd("2e-6")


def test_units() -> None:
    assert price({"mode": "rerank", "input_cost_per_query": 0.002}).rates == {"priced_requests": 2 * 10**12}
    speech = {"mode": "audio_transcription", "input_cost_per_second": 3.083e-05, "output_cost_per_second": 0.0}
    assert price(speech).rates == {"audio_ms": 30_830_000}
    seen = {"mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "input_cost_per_image": 0.04}
    assert price(seen).rates["images"] == 40 * 10**12
    heard = {**seen, "input_cost_per_audio_per_second": 1e-4}
    assert price(heard).rates["audio_ms"] == 100 * 10**6
    assert price({"mode": "embedding", "input_cost_per_token": 2e-08}).rates == {"input": 20_000_000, "output": 0}


@pytest.mark.parametrize(
    ("entry", "problem", "unknown"),
    [
        ({"mode": "chat", "input_cost_per_token": 1e-6}, "states no rate for output; write 0 if that is free", []),
        ({"mode": "video_generation", "output_cost_per_second": 0.1}, "states no rate; 0 is one too", 1),
        ({"mode": "chat", "input_cost_per_second": 0.002}, "states no rate; 0 is one too", 1),
    ],
)
def test_what_cannot_be_used_says_why(entry: dict[str, Any], problem: str, unknown: Any) -> None:
    reading = read("x", entry)
    assert (reading.terms, reading.problem) == (None, problem)
    assert len(reading.unknown) == (unknown or 0)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "must be an object"),
        ({}, "must be an object"),
        ({"m": 1}, "'m' is no object"),
        ({"m": {"input_cost_per_token": "cheap"}}, "input_cost_per_token = 'cheap' is no number; nothing was changed"),
        ({"m": {"output_cost_per_token_batches": -1}}, "is out of range"),
        ({"m": {"input_cost_per_token": True}}, "is no number"),
        ({"m": {"input_cost_per_token": float("nan")}}, "is out of range"),
        ({"m": {"input_cost_per_token": None}}, "is no number"),
        ({"m": {"tiered_pricing": {}}}, "is no list"),
        ({"m": {"tiered_pricing": [5]}}, "is no list"),
        ({"m": {"tiered_pricing": [{"range": ["x"]}]}}, "range = 'x' is no number"),
    ],
)
def test_a_malformed_file_is_refused_as_a_whole(document: Any, message: str) -> None:
    good = {"good": LONG, **document} if isinstance(document, dict) and document else document
    with pytest.raises(InvalidRequest, match=message):
        read_all(good)


def test_the_real_file_where_it_is_installed() -> None:
    root = Path(__file__).parents[3]
    found = sorted(root.glob(".venv-legacy/lib/*/site-packages/litellm/model_prices_and_context_window_backup.json"))
    if not found:
        pytest.skip("the legacy environment has no price file")
    file = read_all(json.loads(found[0].read_text()))
    usable = {name: reading for name, reading in file.readings.items() if reading.terms is not None}
    assert len(usable) > 0.85 * len(file.readings)
    assert all(reading.problem for name, reading in file.readings.items() if name not in usable)
    chat: list[Reading] = [reading for name, reading in usable.items() if file.modes[name] in ("chat", "responses")]
    known = {"search_context_cost_per_query", "provider_specific_entry", "google_maps_grounding_cost_per_query"}
    odd = [reading for reading in chat if set(reading.unknown) - known]
    assert len(odd) < 0.1 * len(chat)
