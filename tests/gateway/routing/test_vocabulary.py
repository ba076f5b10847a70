"""How callers say who shall answer, in bodies, headers and names."""

import json
from typing import Any

import pytest

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.routing import Preferences
from tokenworks.gateway.routing.vocabulary import read, resolve
from tokenworks.snapshot.records import ModelRecord, TargetRecord, UpstreamRecord
from tokenworks.snapshot.state import State

STATE = State.of(
    revision=1,
    keys=[],
    models=[
        ModelRecord("assistant", 1, (TargetRecord("a", "model-1"), TargetRecord("b", "model-1"))),
        ModelRecord("odd:floor", 1, (TargetRecord("a", "x"),)),
    ],
    upstreams=[UpstreamRecord("a", "alpha", (), "http://a"), UpstreamRecord("b", "beta", (), "http://b")],
)


def said(headers: dict[str, str] | None = None, **members: Any) -> tuple[Any, Preferences | None]:
    body = json.dumps({"model": "m", **members}).encode()
    found, preferences = read(body, [(name.encode(), value.encode()) for name, value in (headers or {}).items()])
    return json.loads(found), preferences


def test_a_body_that_says_nothing_is_not_touched() -> None:
    body = b'{ "model":"m",  "messages": [{"content": "the \\"provider\\""}] }'
    assert read(body, [(b"content-type", b"application/json")]) == (body, None)


def test_every_word_of_the_body() -> None:
    body, wanted = said(
        models=["x", "y"],
        provider={
            "order": ["alpha"],
            "only": ["alpha", "beta"],
            "ignore": ["gamma"],
            "allow_fallbacks": False,
            "sort": "price",
            "max_price": {"prompt": 0.5, "completion": "2", "request": 0.01},
            "preferred_max_latency": {"p90": 2.5},
            "preferred_min_throughput": 40,
            "require_parameters": True,
            "data_collection": "deny",
            "zdr": True,
            "quantizations": ["fp8"],
            "region": "eu",
        },
    )
    assert body == {"model": "m"}
    assert wanted == Preferences(
        models=("x", "y"),
        order=("alpha",),
        only=("alpha", "beta"),
        ignore=("gamma",),
        allow_fallbacks=False,
        sort="price",
        max_price={"input": 500_000_000, "output": 2_000_000_000, "priced_requests": 10_000_000_000_000},
        max_latency={0.9: 2.5},
        min_throughput={0.5: 40},
        require_parameters=True,
        deny_data_collection=True,
        zdr=True,
        quantizations=("fp8",),
        regions=("eu",),
    )


def test_headers_say_the_same_for_clients_without_fields() -> None:
    _, wanted = said(
        {
            "x-tokenworks-models": "x, y",
            "x-tokenworks-order": "alpha, beta",
            "x-tokenworks-provider-only": "alpha",
            "x-tokenworks-sort": "latency",
            "x-tokenworks-max-price": "prompt=0.5, output=2",
            "x-tokenworks-zdr": "true",
            "x-tokenworks-region": "eu, us",
            "x-tokenworks-preferred-max-latency": "1.5",
            "x-tokenworks-strict": "true",
        }
    )
    assert wanted == Preferences(
        models=("x", "y"),
        order=("alpha", "beta"),
        only=("alpha",),
        sort="latency",
        max_price={"input": 500_000_000, "output": 2_000_000_000},
        zdr=True,
        regions=("eu", "us"),
        max_latency={0.5: 1.5},
    )


def test_models_alone_name_the_model_too() -> None:
    body, _ = read(b'{"models": ["x", "y"], "messages": []}', [])
    assert json.loads(body)["model"] == "x"


@pytest.mark.parametrize(
    ("members", "headers", "param"),
    [
        ({"provider": {"sort": "cheap"}}, {}, "provider.sort"),
        ({"provider": {"ordr": ["a"]}}, {}, "provider"),
        ({"provider": {"only": "alpha"}}, {}, "provider.only"),
        ({"provider": {"max_price": {"tokens": 1}}}, {}, "provider.max_price"),
        ({"provider": {"max_price": {"input": -1}}}, {}, "provider.max_price.input"),
        ({"provider": "alpha"}, {}, "provider"),
        ({"models": "x"}, {}, "models"),
        ({"models": [str(n) for n in range(11)]}, {}, "models"),
        ({}, {"x-tokenworks-zdr": "yes"}, "x-tokenworks-zdr"),
        ({}, {"x-tokenworks-sort": "cheap"}, "x-tokenworks-sort"),
        ({}, {"x-tokenworks-preferred-max-latency": "soon"}, "x-tokenworks-preferred-max-latency"),
    ],
)
def test_a_wrong_word_is_refused_by_name(members: dict[str, Any], headers: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        said(headers, **members)
    assert refused.value.param == param


def test_a_body_that_is_no_json_is_left_to_its_protocol() -> None:
    assert read(b'{"provider": ', []) == (b'{"provider": ', None)


@pytest.mark.parametrize(
    ("name", "model", "wanted"),
    [
        ("assistant", "assistant", None),
        ("assistant:nitro", "assistant", Preferences(sort="throughput")),
        ("assistant:fastest", "assistant", Preferences(sort="throughput")),
        ("assistant:floor", "assistant", Preferences(sort="price")),
        ("assistant:cheapest", "assistant", Preferences(sort="price")),
        ("odd:floor", "odd:floor", None),
        ("beta/assistant", "assistant", Preferences(only=("beta",))),
        ("beta/model-1", "assistant", Preferences(only=("beta",))),
        ("beta/model-1:floor", "assistant", Preferences(only=("beta",), sort="price")),
        ("gamma/assistant", "gamma/assistant", None),
        ("assistant:unknown", "assistant:unknown", None),
    ],
)
def test_suffixes_and_pins(name: str, model: str, wanted: Preferences | None) -> None:
    assert resolve(name, None, STATE) == (model, wanted)
