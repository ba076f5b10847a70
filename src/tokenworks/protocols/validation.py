"""Bad JSON and wrong types -> InvalidRequest with the field's path and what would be right."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from tokenworks.core.errors import InvalidRequest

T = TypeVar("T")

_AT = re.compile(r"^(?P<problem>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(?P<field>[^`]+)`")


def decode(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw, where: str = "") -> T:
    """The typed body, or InvalidRequest: `param` is a path such as `messages[0].role`, below `where`."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), where) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        detail = str(error) if bytes(body).strip() else "the body is empty"
        raise InvalidRequest(f"The request body is not valid JSON: {detail}.", code="invalid_json") from None
    except RecursionError:
        raise InvalidRequest("The request body is nested too deeply.", code="invalid_json") from None


def present(raw: msgspec.Raw) -> bool:
    """Whether a member was there and not null."""
    return bytes(raw) not in (b"", b"null")


def named(members: Mapping[str, msgspec.Raw], names: Iterable[str]) -> list[str]:
    """Those of the members that ask for something: null, false and nothing do not."""
    return sorted(name for name in names if bytes(members[name]) not in (b"null", b"false", b"[]", b"{}"))


def top_level(body: bytes) -> dict[str, msgspec.Raw]:
    """The top-level members of an object that was decoded before, each as its own bytes. ValueError when it was not."""
    return _TOP_LEVEL.decode(body)


def members_of(body: bytes) -> dict[str, msgspec.Raw]:
    """The same of a caller's body: names that no decoder read before may be no text. InvalidRequest then."""
    return decode(_TOP_LEVEL, body)


def _invalid(text: str, where: str) -> InvalidRequest:
    match = _AT.match(text)
    problem, path = (match["problem"], match["path"] or "$") if match else (text, "$")
    param = (where + path.removeprefix("$")).removeprefix(".")
    if missing := _MISSING.search(problem):
        param = f"{param}.{missing['field']}" if param else missing["field"]
        return InvalidRequest(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    where = f"'{param}'" if param else "the request body"
    return InvalidRequest(f"Invalid value for {where}: {problem}.", param=param or None, code="invalid_value")


_TOP_LEVEL: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
