"""Schemas that do not say whether other members may come."""

from typing import Any

import pytest

from tokenworks.worker.engines.llama.grammar import closed

NAME: dict[str, Any] = {"type": "string"}


def test_objects_are_closed_at_every_depth() -> None:
    inner = {"type": "object", "properties": {"properties": NAME}}
    schema = {"properties": {"a": {"type": "array", "items": inner}}, "$defs": {"b": inner}, "required": ["a"]}
    shut = {**inner, "additionalProperties": False}
    assert closed(schema) == {
        "properties": {"a": {"type": "array", "items": shut}},
        "$defs": {"b": shut},
        "required": ["a"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": NAME}, "additionalProperties": True},
        {"type": "object", "properties": {"a": NAME}, "patternProperties": {"^x": NAME}},
        {"allOf": [{"properties": {"a": NAME}}, {"properties": {"b": NAME}}]},
        {"type": "object", "properties": {"a": NAME}, "anyOf": [{"required": ["a"]}]},
        {"type": "object"},
        {"enum": [{"properties": {"a": 1}}]},
    ],
)
def test_what_says_more_is_left_alone(schema: dict[str, Any]) -> None:
    assert closed(schema) == schema
