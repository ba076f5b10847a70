"""The smallest value of a schema, checked against what the schema says."""

from typing import Any

import pytest

from tokenworks.core.errors import InvalidRequest
from tokenworks.worker.engines.echo.schemas import smallest

CASES: list[tuple[dict[str, Any], Any]] = [
    ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}, {"a": ""}),
    ({"type": "object", "properties": {"a": {"type": "string"}}}, {}),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [0, 0]),
    ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "minItems": 1}, [1]),
    ({"type": "string", "minLength": 3}, "aaa"),
    ({"type": "string", "format": "date"}, "2000-01-01"),
    ({"type": "integer", "minimum": 5}, 5),
    ({"type": "integer", "exclusiveMinimum": 5, "multipleOf": 4}, 8),
    ({"type": "number", "maximum": -2.5}, -2.5),
    ({"type": "boolean"}, False),
    ({"type": ["string", "null"]}, None),
    ({"enum": ["x", "y"]}, "x"),
    ({"const": {"deep": [1]}}, {"deep": [1]}),
    ({"anyOf": [{"$ref": "#"}, {"type": "integer"}]}, 0),
    ({"allOf": [{"required": ["a"]}, {"properties": {"a": {"const": 1}}}], "type": "object"}, {"a": 1}),
    ({"$defs": {"n": {"type": "integer"}}, "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"]}, {"n": 0}),
]


@pytest.mark.parametrize(("schema", "value"), CASES)
def test_smallest(schema: dict[str, Any], value: Any) -> None:
    assert smallest(schema) == value


def test_endless_and_impossible_schemas_are_refused() -> None:
    endless = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    for schema in (endless, False, {"$ref": "#/nowhere"}, {"$ref": "https://elsewhere/schema"}):
        with pytest.raises(InvalidRequest):
            smallest(schema)
