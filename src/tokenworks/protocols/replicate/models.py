"""Models as Replicate's clients read them: an owner and a name, and one version, whose id is made from them. Pure."""

from hashlib import sha256
from typing import Any

import msgspec

from tokenworks.protocols.replicate.prediction import moment

OWNERS = ("tokenworks", "local")
"""Stand for the owner of a public name that has none; the first is the one shown."""
COG_VERSION = "0.16.0"
"""From 0.3.9 on clients read from the schema whether the output is a list that grows."""
_ENCODE = msgspec.json.Encoder().encode

_INPUT: dict[str, dict[str, Any]] = {
    "prompt": {"type": "string", "title": "Prompt", "description": "What the model is asked."},
    "system_prompt": {"type": "string", "title": "System prompt"},
    "prompt_template": {"type": "string", "title": "Prompt template", "description": "With {prompt} in it."},
    "image": {"type": "string", "format": "uri", "title": "Image"},
    "max_tokens": {"type": "integer", "minimum": 1, "title": "Max tokens"},
    "min_tokens": {"type": "integer", "title": "Min tokens"},
    "temperature": {"type": "number", "minimum": 0, "maximum": 2, "title": "Temperature"},
    "top_p": {"type": "number", "minimum": 0, "maximum": 1, "title": "Top p"},
    "top_k": {"type": "integer", "title": "Top k"},
    "presence_penalty": {"type": "number", "title": "Presence penalty"},
    "frequency_penalty": {"type": "number", "title": "Frequency penalty"},
    "repetition_penalty": {"type": "number", "title": "Repetition penalty"},
    "seed": {"type": "integer", "title": "Seed"},
    "stop_sequences": {"type": "string", "title": "Stop sequences", "description": "Separated by commas."},
}
_OUTPUT = {
    "type": "array",
    "items": {"type": "string"},
    "title": "Output",
    "x-cog-array-type": "iterator",
    "x-cog-array-display": "concatenate",
}


def shown(name: str) -> str:
    """A public name as `owner/name`."""
    return name if "/" in name else f"{OWNERS[0]}/{name}"


def public_names(shown: str) -> list[str]:
    """The public names that may be meant."""
    owner, _, rest = shown.partition("/")
    return [shown, rest] if rest and owner in OWNERS else [shown]


def version_id(name: str) -> str:
    """A model here has one version at a time: what the name stands for."""
    return sha256(f"tokenworks version 1 {name}".encode()).hexdigest()


def version_body(name: str, created: int) -> dict[str, Any]:
    schemas = {
        "Input": {"type": "object", "title": "Input", "required": [], "properties": _INPUT},
        "Output": _OUTPUT,
    }
    schema = {"openapi": "3.0.2", "info": {"title": "Cog", "version": "0.1.0"}, "paths": {}}
    return {
        "id": version_id(name),
        "created_at": moment(created),
        "cog_version": COG_VERSION,
        "openapi_schema": schema | {"components": {"schemas": schemas}},
    }


def model_body(name: str, created: int, url: str, description: str) -> dict[str, Any]:
    owner, _, bare = shown(name).partition("/")
    return {
        "url": url,
        "owner": owner,
        "name": bare,
        "description": description,
        "visibility": "public",
        "github_url": None,
        "paper_url": None,
        "license_url": None,
        "run_count": 0,
        "cover_image_url": None,
        "default_example": None,
        "latest_version": version_body(name, created),
    }


def encode_page(results: list[Any], next: str | None = None) -> bytes:
    return _ENCODE({"results": results, "next": next, "previous": None})
