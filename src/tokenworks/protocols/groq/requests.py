"""Requests of Groq's chat: OpenAI's, and what Groq adds to them."""

from dataclasses import replace
from typing import Literal

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.request import Request
from tokenworks.protocols.openai_chat import requests
from tokenworks.protocols.validation import decode

NAME = "groq_chat"
SHOWN = "reasoning_format"
"""The option of a decoded request that says how reasoning is shown: parsed, raw or hidden."""


class Extras(msgspec.Struct):
    reasoning_format: Literal["hidden", "raw", "parsed"] | None = None
    include_reasoning: bool | None = None
    service_tier: Literal["auto", "on_demand", "flex", "performance"] | None = None


_EXTRAS = msgspec.json.Decoder(Extras)
_TIERS = {"auto": "auto", "on_demand": "default", "flex": "flex", "performance": "priority"}
_BACK = {tier: name for name, tier in _TIERS.items()}


def decode_request(body: bytes) -> Request:
    request = requests.decode_request(body)
    extras = decode(_EXTRAS, body)
    if extras.reasoning_format is not None and extras.include_reasoning is not None:
        raise InvalidRequest(
            "Give either 'reasoning_format' or 'include_reasoning', not both.", param="include_reasoning"
        )
    shown = extras.reasoning_format or ("hidden" if extras.include_reasoning is False else "parsed")
    return replace(
        request,
        protocol=NAME,
        service_tier=_TIERS[extras.service_tier or "on_demand"],
        ignored=[name for name in request.ignored if name not in Extras.__struct_fields__],
        options=request.options | {SHOWN: shown},
        timed=True,
    )


def tier_of(name: str) -> str:
    """Groq's word for the tier that an answer was really given at."""
    return _BACK.get(name, name)
