"""Rerank: documents of every host's form, answers of every host, the order that callers rely on."""

import json

import pytest

from tokenworks.core.errors import InvalidRequest, UpstreamBroken
from tokenworks.core.events import Ranked, Started, UsageReport
from tokenworks.core.request import Request, Rerank
from tokenworks.core.usage import Usage
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation

CODEC = codec("rerank")


def asked(**members: object) -> Request:
    body = {"model": "m", "query": "capital", "documents": ["a", "b", "c"], **members}
    return CODEC.decode_request(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("document", "fields", "text"),
    [
        ("plain", None, "plain"),
        ({"text": "only this", "url": "not this"}, None, "only this"),
        ({"title": "T", "body": "B", "year": 1999}, None, "title: T\nbody: B"),
        ({"title": "T", "body": "B"}, ["body"], "B"),
        ({"title": "T", "body": "B"}, ["body", "title"], "body: B\ntitle: T"),
    ],
)
def test_a_document_is_text_or_an_object_with_texts(document: object, fields: list[str] | None, text: str) -> None:
    assert asked(documents=[document], rank_fields=fields).task == Rerank("capital", [text])


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": [{"n": 1}]}, "documents[0]"),
        ({"documents": ["a", {"title": "x"}], "rank_fields": ["text"]}, "documents[1]"),
        ({"top_n": 0}, "top_n"),
        ({"query": None}, "query"),
        ({"stream": True}, "stream"),
    ],
)
def test_what_cannot_be_is_refused_by_name(members: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(**members)
    assert refused.value.param == param


def test_the_answer_falls_in_relevance_and_holds_what_was_asked_for() -> None:
    request = asked(top_n=2, return_documents=True)
    events = [Started("up", "real"), Ranked(0, 0.1), Ranked(1, 0.9), Ranked(2, 0.5), UsageReport(Usage(input=12))]
    body = json.loads(CODEC.encode_response(request, events, "rerank-1", 1))
    assert body["results"] == [
        {"index": 1, "relevance_score": 0.9, "document": {"text": "b"}},
        {"index": 2, "relevance_score": 0.5, "document": {"text": "c"}},
    ]
    assert (body["id"], body["model"], body["usage"]["total_tokens"]) == ("rerank-1", "real", 12)
    assert body["meta"]["billed_units"] == {"search_units": 1}


def test_documents_are_not_sent_back_unasked() -> None:
    body = json.loads(CODEC.encode_response(asked(), [Ranked(0, 0.1)], "id", 1))
    assert body["results"] == [{"index": 0, "relevance_score": 0.1}]


def test_members_of_a_host_pass_through_to_it() -> None:
    request = asked(max_tokens_per_doc=100)
    assert request.ignored == ["max_tokens_per_doc"]
    sent = json.loads(CODEC.rewrite_request(request, "name-there"))
    assert (sent["model"], sent["max_tokens_per_doc"]) == ("name-there", 100)


def test_the_relay_forwards_bytes_and_sees_the_usage() -> None:
    body = b'{"results":[{"index":0,"relevance_score":1,"extra":{}}],"meta":{"tokens":{"input_tokens":7.0}}}'
    seen = Observation()
    assert CODEC.passthrough(asked(), seen).whole(body) == body
    assert (seen.usage, seen.finish_reasons) == (Usage(input=7), {0: "stop"})


@pytest.mark.parametrize("body", [b"", b"{}", b'{"results": [{"index": 0}]}', b'{"results": null, "error": "no"}'])
def test_an_answer_that_is_none_is_not_taken_for_one(body: bytes) -> None:
    with pytest.raises(ValueError):
        CODEC.read_response(body)
    with pytest.raises(UpstreamBroken):
        CODEC.passthrough(asked(), Observation()).whole(body)
