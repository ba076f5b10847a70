"""How callers say who shall answer: `models` and `provider` in the body of any protocol, `x-tokenworks-*` headers for
clients that cannot add fields, suffixes and pins in the model's name. The words are OpenRouter's, which people know.

The two members are taken out of the body: upstreams that know them too would take our names for theirs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any, Literal

import msgspec

from tokenworks.core.caller import Caller
from tokenworks.core.errors import (
    InvalidRequest,
    LimitReached,
    NotFound,
    PermissionDenied,
    TokenworksError,
    Unavailable,
)
from tokenworks.core.money import price_to_nano
from tokenworks.core.price import STATED
from tokenworks.core.request import Request
from tokenworks.core.routing import LATENCY, PRICE, SORTS, THROUGHPUT, Preferences
from tokenworks.gateway.edge.exchange import Header
from tokenworks.gateway.failover.turns import RULES
from tokenworks.gateway.routing import aliases
from tokenworks.gateway.routing.plan import NO_PROVIDER
from tokenworks.protocols.validation import decode as checked
from tokenworks.snapshot.state import State

SUFFIXES = {"nitro": THROUGHPUT, "fastest": THROUGHPUT, "floor": PRICE, "cheapest": PRICE, "quickest": LATENCY}
PREFIX = b"x-tokenworks-"
TIMEOUT = PREFIX + b"timeout"
MOST_MODELS = 10
_ALIASES = {"prompt": "input", "completion": "output"}
_PERCENTILES = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_USUAL = 0.5
"""Which percentile a plain number bounds."""

Bound = float | dict[Literal["p50", "p75", "p90", "p95", "p99"], float]


class _Provider(msgspec.Struct, forbid_unknown_fields=True):
    order: list[str] | None = None
    only: list[str] | None = None
    ignore: list[str] | None = None
    allow_fallbacks: bool | None = None
    sort: Literal["order", "price", "latency", "throughput", "balanced"] | None = None
    max_price: dict[str, float | str] | None = None
    preferred_max_latency: Bound | None = None
    preferred_min_throughput: Bound | None = None
    require_parameters: bool | None = None
    data_collection: Literal["allow", "deny"] | None = None
    zdr: bool | None = None
    quantizations: list[str] | None = None
    region: str | list[str] | None = None


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_PROVIDER = msgspec.json.Decoder(_Provider)
_MODELS = msgspec.json.Decoder(list[str])
_ENCODE = msgspec.json.Encoder().encode


def decoded(decode: Callable[[bytes], Request], body: bytes, headers: Sequence[Header]) -> Request:
    """What a protocol's decoder makes of a body, with who shall answer it."""
    body, preferences = read(body, headers)
    request = decode(body)
    request.routing = preferences
    request.patience = _patience(headers)
    aliases.told(request, headers)
    return request


def read(body: bytes, headers: Sequence[Header]) -> tuple[bytes, Preferences | None]:
    """The body without our words, and what they said; None when they said nothing. InvalidRequest names the word."""
    said: dict[str, Any] = {}
    models: tuple[str, ...] = ()
    if b'"provider"' in body or b'"models"' in body:
        body, models, said = _from_body(body)
    for name, value in headers:
        if name.startswith(PREFIX) and (take := _HEADERS.get(name[len(PREFIX) :])) is not None:
            field, text = take, value.decode("latin-1")
            if field == "models":
                models = tuple(_list(text))
            else:
                said[field] = _from_header(name.decode(), field, text)
    if not said and not models:
        return body, None
    return body, _preferences(said, models)


def resolve(name: str, preferences: Preferences | None, state: State) -> tuple[str, Preferences | None]:
    """A model's name as callers write it -> the public name, and what its suffix or pin asks for beside."""
    if name in state.models or name in state.aliases or not name:
        return name, preferences
    base, colon, suffix = name.rpartition(":")
    if colon and suffix in SUFFIXES:
        found, wanted = resolve(base, preferences, state)
        return found, replace(wanted or Preferences(), sort=SUFFIXES[suffix])
    provider, slash, rest = name.partition("/")
    if slash:
        if rest in state.aliases and any(each.provider == provider for each in state.upstreams.values()):
            return rest, replace(preferences or Preferences(), only=(provider,))
        for model in (rest, *(each.name for each in state.models.values())):
            known = state.models.get(model)
            if known is not None and any(
                state.upstreams[target.upstream].provider == provider and rest in (model, target.model)
                for target in known.targets
                if target.upstream in state.upstreams
            ):
                return model, replace(preferences or Preferences(), only=(provider,))
    return name, preferences


def choices(request: Request, state: State, caller: Caller) -> list[Request]:
    """The request for each model that may answer it, in turn: at least one. Virtual models are resolved."""
    wished = request.routing
    names = list(dict.fromkeys((request.model, *(wished.models if wished else ()))))
    found = []
    for name in names:
        model, routing = resolve(name, wished, state)
        same = len(names) == 1
        choice = request if same else replace(request, ignored=list(request.ignored))
        choice.via = aliases.resolved(model, request, caller, state) if state.aliases else None
        choice.model, choice.routing = choice.via.model if choice.via else model, routing
        found.append(choice)
    return found


def falls_over(error: TokenworksError) -> bool:
    """Whether another model may do better: this one is not there, not allowed, used up, too small, or failed."""
    if isinstance(error, NotFound | PermissionDenied | LimitReached | Unavailable):
        return True
    return error.code == NO_PROVIDER or RULES[error.fault].elsewhere


def _from_body(body: bytes) -> tuple[bytes, tuple[str, ...], dict[str, Any]]:
    try:
        members = _MEMBERS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body, (), {}  # the protocol's own decoder says what is wrong
    provider, models = members.pop("provider", None), members.pop("models", None)
    if provider is None and models is None:
        return body, (), {}
    said: dict[str, Any] = {}
    if provider is not None and bytes(provider) != b"null":
        wish = checked(_PROVIDER, provider, "provider")
        said = {name: value for name in _Provider.__struct_fields__ if (value := getattr(wish, name)) is not None}
    names: tuple[str, ...] = ()
    if models is not None and bytes(models) != b"null":
        listed: list[str] = checked(_MODELS, models, "models")
        names = tuple(listed)
        if names and "model" not in members:
            members = {"model": msgspec.Raw(_ENCODE(names[0])), **members}
    return _ENCODE(members), names, said


_HEADERS = {name.replace("_", "-").encode(): name for name in _Provider.__struct_fields__} | {
    b"models": "models",
    b"provider-order": "order",
    b"provider-only": "only",
    b"provider-ignore": "ignore",
}
_TYPES: Mapping[str, Callable[[str], Any]]


def _patience(headers: Sequence[Header]) -> float | None:
    """Seconds after which the caller wants no answer any more."""
    given = next((value for name, value in headers if name == TIMEOUT), None)
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < inf:
        name = TIMEOUT.decode()
        raise InvalidRequest(f"'{name}' takes a number of seconds above 0.", param=name, code="invalid_value")
    return seconds


def _list(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


def _amounts(text: str) -> dict[str, str]:
    """`input=0.5,output=2`"""
    pairs = [each.partition("=") for each in _list(text)]
    return {name.strip(): value.strip() for name, _, value in pairs}


_TYPES = {
    **dict.fromkeys(("order", "only", "ignore", "quantizations", "region"), _list),
    **dict.fromkeys(("allow_fallbacks", "require_parameters", "zdr"), _flag),
    **dict.fromkeys(("preferred_max_latency", "preferred_min_throughput"), float),
    "max_price": _amounts,
}


def _from_header(name: str, field: str, text: str) -> Any:
    try:
        return msgspec.convert(_TYPES.get(field, str)(text), _Provider.__annotations__[field])
    except (ValueError, msgspec.ValidationError) as error:
        raise InvalidRequest(f"Invalid value for '{name}': {error}.", param=name, code="invalid_value") from None


def _preferences(said: dict[str, Any], models: tuple[str, ...]) -> Preferences:
    if len(models) > MOST_MODELS:
        raise InvalidRequest(f"'models' names {len(models)} models; at most {MOST_MODELS} are tried.", param="models")
    regions = said.get("region", ())
    return Preferences(
        models=models,
        order=tuple(said.get("order", ())),
        only=tuple(said.get("only", ())),
        ignore=tuple(said.get("ignore", ())),
        allow_fallbacks=said.get("allow_fallbacks", True),
        sort=said.get("sort", ""),
        max_price={_kind(name): _rate(name, value) for name, value in said.get("max_price", {}).items()},
        max_latency=_bounds(said.get("preferred_max_latency")),
        min_throughput=_bounds(said.get("preferred_min_throughput")),
        require_parameters=said.get("require_parameters", False),
        deny_data_collection=said.get("data_collection") == "deny",
        zdr=said.get("zdr", False),
        quantizations=tuple(said.get("quantizations", ())),
        regions=(regions,) if isinstance(regions, str) else tuple(regions),
    )


def _bounds(bound: Bound | None) -> dict[float, float]:
    if bound is None:
        return {}
    return {_PERCENTILES[name]: value for name, value in bound.items()} if isinstance(bound, dict) else {_USUAL: bound}


def _kind(name: str) -> str:
    stated = STATED.get(_ALIASES.get(name, name))
    if stated is None:
        raise InvalidRequest(
            f"Invalid value for 'provider.max_price': there is no price for '{name}'; known: {', '.join(STATED)}.",
            param="provider.max_price",
            code="invalid_value",
        )
    return stated[0]


def _rate(name: str, value: float | str) -> int:
    try:
        return price_to_nano(str(value)) * STATED[_ALIASES.get(name, name)][1]
    except ValueError as error:
        raise InvalidRequest(
            f"Invalid value for 'provider.max_price.{name}': {error}.", param=f"provider.max_price.{name}"
        ) from None


assert set(_Provider.__annotations__["sort"].__args__[0].__args__) == set(SORTS)  # noqa: S101 -- a Literal cannot be computed
