"""The smallest value that a JSON schema allows, for the keywords that structured outputs use."""

from collections.abc import Mapping
from typing import Any

from tokenworks.core.errors import InvalidRequest

DEEPEST = 32
_FORMATS = {
    "date-time": "2000-01-01T00:00:00Z",
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "email": "a@example.com",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "uri": "https://example.com",
}


def smallest(schema: Mapping[str, Any] | bool) -> Any:
    """InvalidRequest for a schema that nothing can match, or only something endless."""
    return _smallest(schema, schema if isinstance(schema, Mapping) else {}, 0)


def _smallest(schema: Mapping[str, Any] | bool, root: Mapping[str, Any], depth: int) -> Any:
    if schema is False or depth > DEEPEST:
        raise InvalidRequest("The JSON schema allows no finite value.", param="response_format")
    if schema is True:
        return None
    if "$ref" in schema:
        return _smallest(_resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return _first_finite({**schema, union: None}, schema[union], root, depth)
    if schema.get("allOf"):
        return _smallest(_merged({**schema, "allOf": None}, schema["allOf"], root), root, depth + 1)
    return _of_type(schema, root, depth)


def _of_type(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = "null" if "null" in kind else kind[0]
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "null"
    match kind:
        case "object":
            properties = schema.get("properties", {})
            return {name: _smallest(properties.get(name, True), root, depth + 1) for name in schema.get("required", ())}
        case "array":
            head = schema.get("prefixItems", [])
            count = schema.get("minItems", 0)
            items = [*head[:count], *[schema.get("items", True)] * (count - len(head))]
            return [_smallest(item, root, depth + 1) for item in items]
        case "string":
            return _FORMATS.get(schema.get("format", ""), "").ljust(schema.get("minLength", 0), "a")
        case "integer" | "number":
            return _number(schema, whole=kind == "integer")
        case "boolean":
            return False
        case _:
            return None


def _number(schema: Mapping[str, Any], *, whole: bool) -> Any:
    """The value nearest to zero."""
    gap = 1 if whole else 0.5
    low = schema.get("minimum", float("-inf"))
    if "exclusiveMinimum" in schema:
        low = max(low, schema["exclusiveMinimum"] + gap)
    high = schema.get("maximum", float("inf"))
    if "exclusiveMaximum" in schema:
        high = min(high, schema["exclusiveMaximum"] - gap)
    value = min(max(0, low), high)
    if step := schema.get("multipleOf"):
        value = -(-value // step) * step
    return int(value) if whole else value


def _first_finite(base: Mapping[str, Any], choices: list[Any], root: Mapping[str, Any], depth: int) -> Any:
    for choice in choices:
        try:
            return _smallest(_merged(base, [choice], root), root, depth + 1)
        except InvalidRequest:
            continue
    return _smallest(False, root, depth)


def _merged(base: Mapping[str, Any], others: list[Any], root: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for other in others:
        if not isinstance(other, Mapping):
            continue
        resolved = _resolve(other["$ref"], root) if "$ref" in other else other
        required = [*merged.get("required", ()), *resolved.get("required", ())]
        properties = {**merged.get("properties", {}), **resolved.get("properties", {})}
        merged |= resolved
        merged |= {"required": required} if required else {}
        merged |= {"properties": properties} if properties else {}
    return merged


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    if not reference.startswith("#") or found is None:
        raise InvalidRequest(f"The JSON schema refers to {reference!r}, which is not in it.", param="response_format")
    return found
