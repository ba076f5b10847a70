"""What an answer is held to beside a JSON schema, from each way of asking to the engine that can."""

import json
from typing import Any

import pytest

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.request import Grammar
from tokenworks.gateway.upstreams.quirks import adapt
from tokenworks.protocols.openai_chat import requests as openai_chat
from tokenworks.protocols.tgi import requests as tgi
from tokenworks.protocols.worker import requests as worker

CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def asked(**more: Any) -> Any:
    return openai_chat.decode_request(json.dumps(CHAT | more).encode())


@pytest.mark.parametrize(
    ("members", "grammar"),
    [
        ({"response_format": {"type": "regex", "pattern": "a+"}}, Grammar("a+", "response_format", regex=True)),
        ({"response_format": {"type": "regex", "regex": "a+"}}, Grammar("a+", "response_format", regex=True)),
        ({"response_format": {"type": "grammar", "grammar": "root ::= x"}}, Grammar("root ::= x", "response_format")),
        ({"structured_outputs": {"regex": "a"}}, Grammar("a", "structured_outputs.regex", regex=True)),
        ({"guided_regex": "a"}, Grammar("a", "guided_regex", regex=True)),
        ({"guided_grammar": "root ::= x"}, Grammar("root ::= x", "guided_grammar")),
        ({"guided_choice": ["yes", 'a "no"']}, Grammar(r'start: "yes" | "a \"no\""', "guided_choice")),
        ({"response_format": {"type": "json_object"}}, None),
        ({}, None),
    ],
)
def test_each_way_of_asking(members: dict[str, Any], grammar: Grammar | None) -> None:
    request = asked(**members)
    assert request.grammar == grammar
    assert request.own == ([grammar.param] if grammar else [])


def test_tgi_asks_for_patterns() -> None:
    parameters = {"grammar": {"type": "regex", "value": "[0-9]"}}
    request = tgi.decode_request(json.dumps({"inputs": "x", "parameters": parameters}).encode())
    assert request.grammar == Grammar("[0-9]", "parameters.grammar", regex=True)
    assert request.own == ["parameters.grammar"]


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"guided_regex": "a", "structured_outputs": {"grammar": "x"}}, "structured_outputs.grammar"),
        ({"guided_choice": []}, "guided_choice"),
        ({"response_format": {"type": "regex"}}, "response_format"),
    ],
)
def test_what_makes_no_sense_is_refused(members: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(**members)
    assert refused.value.param == param


def test_what_only_its_own_protocol_knows_is_refused_elsewhere() -> None:
    assert asked(structured_outputs={"structural_tag": "{}"}).own == ["structured_outputs"]


def test_an_engine_that_can_gets_it() -> None:
    request = asked(guided_regex="[0-9]+")
    able = adapt(request, {"grammars"})
    assert (able.own, request.own) == ([], ["guided_regex"]), "the caller's own is not changed"
    assert json.loads(worker.encode_request(able, "m", stream=True))["regex"] == "[0-9]+"
    both = adapt(asked(guided_regex="a", modalities=["audio"]), {"grammars"})
    assert both.own == ["modalities"], "what it cannot honour stays refused"
