"""What a request's caller says of it to the gateway alone, and which model the alias that it names stands for now."""

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from tokenworks.core.aliases.asking import facts
from tokenworks.core.aliases.reading import Unreadable
from tokenworks.core.aliases.records import Resolution
from tokenworks.core.aliases.resolving import Endless, resolve
from tokenworks.core.caller import Caller
from tokenworks.core.errors import InvalidRequest
from tokenworks.core.request import Request
from tokenworks.gateway.edge.exchange import Header
from tokenworks.snapshot.state import State

METADATA, SESSION = b"x-tokenworks-metadata", b"x-tokenworks-session"
MOST_LABELS, LONGEST_LABEL = 50, 512
_JSON = msgspec.json.Decoder(dict[str, str | int | float | bool])


def told(request: Request, headers: Iterable[Header]) -> None:
    """Metadata and session out of the headers. InvalidRequest names the one that cannot be read."""
    for name, value in headers:
        if name == METADATA:
            request.labels = _labels(value)
        elif name == SESSION:
            request.session = value.decode("latin-1")[:LONGEST_LABEL]


def resolved(name: str, request: Request, caller: Caller, state: State) -> Resolution | None:
    """None for the name of a model, which an alias does not take from it, and for an alias that leads nowhere."""
    if name not in state.aliases or name in state.models:
        return None
    try:
        return resolve(name, state.alias, facts(request, caller, time.time()))
    except (Endless, Unreadable):
        return None


def _labels(value: bytes) -> dict[str, str]:
    """`{"tier": "gold"}`, or `tier=gold, team=blue`."""
    text = value.decode("utf-8", "replace").strip()
    found: dict[str, Any]
    if text.startswith("{"):
        try:
            found = _JSON.decode(text)
        except msgspec.MsgspecError as error:
            raise _unreadable(f"it is no JSON object of texts and numbers ({error})") from None
    else:
        pairs = [each.partition("=") for each in text.split(",") if each.strip()]
        if any(not equals or not key.strip() for key, equals, _ in pairs):
            raise _unreadable('write {"tier": "gold"} or tier=gold, team=blue')
        found = {key.strip(): each.strip() for key, _, each in pairs}
    if len(found) > MOST_LABELS:
        raise _unreadable(f"it has {len(found)} members, at most {MOST_LABELS} are read")
    return {key: each if isinstance(each, str) else msgspec.json.encode(each).decode() for key, each in found.items()}


def _unreadable(why: str) -> InvalidRequest:
    name = METADATA.decode()
    return InvalidRequest(f"Invalid value for '{name}': {why}.", param=name, code="invalid_value")
